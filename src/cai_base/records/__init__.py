"""What a run stores, typed: one class for each kind of record.

A record is read from and written to JSON as its fields stand in its class, in that order; a field that was not set is
left out. `judging` and `method` have what the phases store, `answers` what evaluations store, `figures` the figures of
the results, `results` the contents of every results file, `schema` their JSON Schema.
"""

from cai_base.records.answers import Answer, AskedArm, ComparedAnswers, StyledAnswer
from cai_base.records.figures import (
    Agreement,
    Difference,
    Figure,
    Floor,
    Fluency,
    Interval,
    McNemar,
    NamedFailure,
    Needed,
    NonInferiority,
    SecondFigure,
    SecondJudge,
    Summary,
)
from cai_base.records.judging import VERDICT_PARTS, Judgement, Part, Verdict, Vote
from cai_base.records.method import Chain, Failure, Outcome, Pair, Reference, Round, TrainingStep
from cai_base.records.results import (
    Accuracy,
    ComparisonsAsked,
    ComparisonsResults,
    ConstitutionUsed,
    ControlUsed,
    CurvePoint,
    LossUsed,
    Prefilled,
    Results,
    RevisionFigures,
    RubricUsed,
    StyleAnswer,
    StyleArm,
    StyleResults,
    SuiteAsked,
    SuiteResults,
)
from cai_base.records.schema import RESULTS_FILES, results_schema
from cai_base.records.stored import Stored

__all__ = [
    "RESULTS_FILES",
    "VERDICT_PARTS",
    "Accuracy",
    "Agreement",
    "Answer",
    "AskedArm",
    "Chain",
    "ComparedAnswers",
    "ComparisonsAsked",
    "ComparisonsResults",
    "ConstitutionUsed",
    "ControlUsed",
    "CurvePoint",
    "Difference",
    "Failure",
    "Figure",
    "Floor",
    "Fluency",
    "Interval",
    "Judgement",
    "LossUsed",
    "McNemar",
    "NamedFailure",
    "Needed",
    "NonInferiority",
    "Outcome",
    "Pair",
    "Part",
    "Prefilled",
    "Reference",
    "Results",
    "RevisionFigures",
    "Round",
    "RubricUsed",
    "SecondFigure",
    "SecondJudge",
    "Stored",
    "StyleAnswer",
    "StyleArm",
    "StyleResults",
    "StyledAnswer",
    "SuiteAsked",
    "SuiteResults",
    "Summary",
    "TrainingStep",
    "Verdict",
    "Vote",
    "results_schema",
]
