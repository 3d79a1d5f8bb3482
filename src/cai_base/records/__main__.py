"""Print the JSON Schema of the results files: `python -m cai_base.records > docs/results.schema.json`."""

import json

from cai_base.records.schema import results_schema

print(json.dumps(results_schema(), indent=2))
