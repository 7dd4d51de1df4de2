"""What `tssan-viz compare --json` prints, as a JSON Schema (draft 2020-12)."""

from __future__ import annotations

from typing import Any

_NUMBER = {"type": ["number", "null"]}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_NUMBERS = {"type": "array", "items": {"type": "integer"}}
_CLASS = {
    "type": ["object", "null"],
    "properties": {
        "label": {"type": "integer"},
        "name": {"type": "string"},
        "code": {"type": ["string", "null"]},
    },
    "required": ["label", "name", "code"],
}

_LINE = {
    "type": "object",
    "description": "One layer and head; null where a number is not defined.",
    "properties": {
        "layer": {"type": "integer", "minimum": 1},
        "head": {"type": "integer", "minimum": 1},
        "W": {
            **_NUMBER,
            "description": "Mean similarity within what is asked about (a distance "
            "where the metric is one).",
        },
        "B": {**_NUMBER, "description": "Mean similarity to the rest, of other subjects."},
        "delta": {**_NUMBER, "description": "W − B; of a distance B − W."},
        "hedges_g": {**_NUMBER, "description": "Of the subjects' differences."},
        "low": {**_NUMBER, "description": "Jackknife interval; null under six subjects."},
        "high": _NUMBER,
        "p": {**_NUMBER, "description": "One-sided, of this line alone."},
        "p_max_t": {**_NUMBER, "description": "Westfall–Young, for all lines together."},
        "q": {**_NUMBER, "description": "Benjamini–Hochberg over all lines."},
    },
    "required": [
        "layer",
        "head",
        "W",
        "B",
        "delta",
        "hedges_g",
        "low",
        "high",
        "p",
        "p_max_t",
        "q",
    ],
    "additionalProperties": {"type": ["number", "null"]},
}


def _lines(**columns: dict[str, Any]) -> dict[str, Any]:
    """Describe a table: one object a line, with each of the columns and no other."""
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": columns,
            "required": list(columns),
            "additionalProperties": False,
        },
    }


_SITE = {"layer": {"type": "integer", "minimum": 1}, "head": {"type": "integer", "minimum": 1}}
_WORD = {"type": "string"}
_TESTED = {"p": _NUMBER, "p_max_t": _NUMBER, "q": _NUMBER}


def _further(about: str, table: dict[str, Any]) -> dict[str, Any]:
    """Describe a further answer: its table, or why it was not made."""
    return {
        "description": about,
        "type": "object",
        "oneOf": [
            {"properties": {"table": table, "notes": _TEXTS}, "required": ["table", "notes"]},
            {
                "properties": {"result": {"type": "null"}, "notes": _TEXTS},
                "required": ["result", "notes"],
            },
        ],
    }


_FURTHER = {
    "variance": _further(
        "Shares of variance: one line per layer, head, order and effect; of sequential sums of "
        "squares both orders of class and subject.",
        _lines(
            **_SITE,
            order={"enum": ["class first", "subject first"]},
            effect=_WORD,
            df={"type": "integer"},
            eta2=_NUMBER,
            omega2=_NUMBER,
            component=_NUMBER,
            share=_NUMBER,
        ),
    ),
    "decoding": _further(
        "How well the class (subjects left out) and the subject (classes left out) are read.",
        _lines(
            **_SITE,
            **{
                f"{what}_{name}": _NUMBER
                for what in ("class", "subject")
                for name in ("accuracy", "chance", "p", "p_max_t", "q")
            },
        ),
    ),
    "difference": _further(
        "Where the mean maps of the two sides differ most, and the largest cluster.",
        _lines(
            **_SITE,
            largest=_NUMBER,
            query={"type": ["integer", "null"]},
            key={"type": ["integer", "null"]},
            p=_NUMBER,
            cells={"type": "integer"},
            cluster_p=_NUMBER,
        ),
    ),
    "measures": _further(
        "Measures of single maps, contrasted between the two sides.",
        _lines(
            **_SITE,
            measure=_WORD,
            mean_a=_NUMBER,
            mean_b=_NUMBER,
            difference=_NUMBER,
            hedges_g=_NUMBER,
            cliffs_delta=_NUMBER,
            low=_NUMBER,
            high=_NUMBER,
            **_TESTED,
        ),
    ),
    "permanova": _further(
        "Blocked PERMANOVA with the test of dispersion; `factor` says of what.",
        _lines(
            **_SITE, F=_NUMBER, R2=_NUMBER, **_TESTED, dispersion_F=_NUMBER, dispersion_p=_NUMBER
        ),
    ),
    "matrix": _further(
        "Class × class similarity, clustered: `similarity` and `linkage`.",
        _lines(
            class_name=_WORD,
            W=_NUMBER,
            nearest={"type": ["string", "null"]},
            nearest_similarity=_NUMBER,
            farthest={"type": ["string", "null"]},
            farthest_similarity=_NUMBER,
            margin=_NUMBER,
        ),
    ),
}

JSON_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "tssan-viz compare --json",
    "type": "object",
    "properties": {
        "schema": {"const": 1},
        "class": {**_CLASS, "description": "Of a question about a class."},
        "with": {**_CLASS, "description": "The class it was compared with; null for all others."},
        "by": {
            "enum": [
                "subject",
                "camera",
                "correct",
                "predicted",
                "step",
                "duration",
                "condition",
                "run",
            ],
            "description": "Of a question about groups: what they are of.",
        },
        "groups": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "group": {"type": "string"},
                    "videos": {"type": "integer"},
                    "subjects": {"type": "integer"},
                    "similarity": _NUMBER,
                },
                "required": ["group", "videos", "subjects", "similarity"],
            },
        },
        "between": {
            "type": "object",
            "description": "Similarity of each two groups, averaged over the heads.",
            "properties": {
                "groups": _TEXTS,
                "similarity": {"type": "array", "items": {"type": "array", "items": _NUMBER}},
            },
        },
        "other_run": {"type": "string"},
        "heads_matched": {"type": "boolean"},
        "store": {"type": "string"},
        "run": {"type": "string"},
        "split": {"type": ["string", "null"]},
        "person": {"type": "integer"},
        "metric": {"type": "string"},
        "layers": _NUMBERS,
        "heads": _NUMBERS,
        "n_subjects": {"type": "integer", "description": "The unit of every statement."},
        "subjects": _NUMBERS,
        "n_samples": {"type": "integer", "description": "Videos."},
        "n_class_samples": {"type": "integer"},
        "n_other_classes": {"type": "integer"},
        "accuracy": {
            "type": ["object", "null"],
            "properties": {
                "share": {"type": "number"},
                "videos": {"type": "integer"},
                "classes": {"type": "integer"},
                "at_chance": {"type": "boolean"},
            },
            "required": ["share", "videos", "classes", "at_chance"],
        },
        "test": {
            "type": "object",
            "properties": {
                "statistic": {"enum": ["delta = W - B", "delta = B - W"]},
                "alternative": {"const": "greater"},
                "exchange": {"type": ["string", "null"]},
                "subjects_exchanged": {"type": "integer"},
                "permutations": {"type": "integer"},
                "assignments": {"type": "integer"},
                "enumerated": {"type": "boolean"},
                "smallest_p": _NUMBER,
                "seed": {"type": ["integer", "null"]},
                "alpha": {"type": "number"},
                "reason_for_no_test": {"type": ["string", "null"]},
                "corrections": {"type": "object"},
                "interval": {"type": "string"},
            },
            "required": [
                "statistic",
                "exchange",
                "permutations",
                "smallest_p",
                "reason_for_no_test",
            ],
        },
        "table": {"type": "array", "items": _LINE},
        "neighbours": {
            **_lines(class_name=_WORD, class_code={"type": ["string", "null"]}, similarity=_NUMBER),
            "description": "Other classes, the nearest first.",
        },
        "views": {
            **_lines(
                **_SITE,
                same_view=_NUMBER,
                other_view=_NUMBER,
                subject_same_view=_NUMBER,
                subject_other_view=_NUMBER,
            ),
            "description": "The class across cameras: of two subjects, and of one.",
        },
        "summary": _TEXTS,
        "notes": _TEXTS,
        "further": {
            "type": "object",
            "description": "What --show asked for, by its name.",
            "properties": _FURTHER,
            "additionalProperties": False,
        },
    },
    "required": [
        "schema",
        "store",
        "run",
        "metric",
        "n_subjects",
        "accuracy",
        "test",
        "table",
        "summary",
        "notes",
    ],
    "additionalProperties": False,
}
"""Keys of the answer, with what they hold. Further keys come with a new number of `schema`."""
