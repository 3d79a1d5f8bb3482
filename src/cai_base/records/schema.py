"""The JSON Schema of the results files, `docs/results.schema.json`, generated from their records."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from cai_base.records.results import ComparisonsResults, Results, StyleResults, SuiteResults
from cai_base.records.stored import Stored
from cai_base.records.study import StudyResults

RESULTS_FILES: dict[str, type[Stored]] = {
    "run": Results,
    "suite": SuiteResults,
    "comparisons": ComparisonsResults,
    "style": StyleResults,
    "study": StudyResults,
}
"""What `results.json` of a run, of a suite and of comparisons, `style.json`, and `study.json` contain."""


class _WithoutTitles(GenerateJsonSchema):
    """A schema whose fields have no titles that only repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def results_schema() -> dict[str, Any]:
    """The JSON Schema of every results file: a file is what one of `anyOf` says, in the order of `RESULTS_FILES`."""
    references, schema = models_json_schema(
        [(model, "serialization") for model in RESULTS_FILES.values()],
        title="cai-base: results.json of a run, of a suite and of comparisons, style.json and study.json",
        schema_generator=_WithoutTitles,
    )
    files = [references[model, "serialization"] for model in RESULTS_FILES.values()]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "anyOf": files, **schema}
