"""The schemas of what one model takes and gives, made of its signature."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fitserve.protocols.openapi import Component, Schema, class_name, object_of
from fitserve.signature import Field, Kind, Label, Signature

if TYPE_CHECKING:
    from collections.abc import Sequence

_JSON_TYPES: dict[Kind, tuple[str, ...]] = {
    "number": ("number",),
    "numeric": ("number", "boolean"),
    "string": ("string",),
    "boolean": ("boolean",),
    "any": ("number", "string", "boolean"),
}

_NUMBER_NAMES: dict[Kind, str] = {"number": "Number", "numeric": "NumberOrBoolean", "any": "Value"}

NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_ANY_VALUE: Schema = {"type": ["number", "string", "boolean", "null"]}
_MOST_EXAMPLES = 5


def field_schema(field: Field, place: int = 0) -> Schema:
    """One input value; ``place`` names the categories of a column whose name has no letters of ours."""
    if field.is_closed and field.categories is not None:
        known = one_of(field.categories)
        if "enum" in known:
            known = Component(class_name(field.name) or f"Category{place}", known)
        return _or_null(known) if field.is_nullable else known
    if field.kind == "datetime":
        # An offset may be left out, which these formats do not allow: the description says so.
        formats: list[Schema] = [{"type": "string", "format": name} for name in ("date-time", "date")]
        text = "A date and time, or a date. A time without an offset is taken as it is; one with is taken to UTC."
        return {"anyOf": [*formats, *([{"type": "null"}] if field.is_nullable else [])], "description": text}
    types = [*_JSON_TYPES[field.kind], *(["null"] if field.is_nullable else [])]
    schema: Schema = {"type": types[0] if len(types) == 1 else types}
    if "number" in types:
        schema |= {"minimum": -field.largest, "maximum": field.largest}
    if field.categories:
        return {**schema, "examples": list(field.categories[:_MOST_EXAMPLES])}
    # The longest of them, which a table of hundreds of columns has in each: once is enough.
    if "number" not in types:
        return schema
    return Component(_NUMBER_NAMES[field.kind] + "OrNull" * field.is_nullable, schema, is_common=True)


def row_schemas(signature: Signature) -> dict[str, Schema]:
    """The forms of one row: an object by name, a list, a list of name and value."""
    if signature.is_open:
        number = field_schema(Field(""))
        return {"list": Component("FeatureList", {"type": "array", "items": number, "minItems": 1})}
    schemas = [field_schema(field, place) for place, field in enumerate(signature.inputs)]
    n_features = len(schemas)
    # Each place has its schema and no more are allowed. Not "items": false, which some tools cannot read.
    exactly: Schema = {"type": "array", "minItems": n_features, "maxItems": n_features}
    is_uniform = all(schema == schemas[0] for schema in schemas)
    values = {"items": schemas[0]} if is_uniform else {"prefixItems": schemas}
    pairs = [
        {"properties": {"name": {"const": name}, "value": schema}}
        for name, schema in zip(signature.names, schemas, strict=True)
    ]
    pair = object_of({"name": {"type": "string"}, "value": {}})
    by_name = _object_with_class(dict(zip(signature.names, schemas, strict=True)))
    return {
        "object": Component("Features", {**by_name, "description": "A row by feature name."}),
        "list": Component("FeatureList", {**exactly, **values, "description": "A row in the order of fitting."}),
        # Below allOf, so that a generator makes no class of each pair: a list that it meets would be taken for pairs.
        "pairs": Component(
            "FeaturePairs",
            {
                **exactly,
                "items": {},
                "allOf": [{"items": pair}, {"prefixItems": pairs}],
                "description": "Name and value, in any order.",
            },
        ),
    }


def outputs_name_schema(signature: Signature) -> Schema:
    """A name out of the outputs that the model offers."""
    return Component("OutputName", {"type": "string", "enum": list(signature.outputs)})


def prediction_schema(signature: Signature) -> Schema:
    """One prediction: the label or the value that the model gives for a row."""
    if signature.is_open:
        return {}
    if signature.classes is None:
        one: list[Schema] = [_ANY_VALUE] * (signature.n_outputs or 1)
    else:
        one = [Component("Label", one_of(labels)) for labels in signature.classes]
    return _one_or_list(signature, one)


def probability_schema(signature: Signature) -> Schema:
    """The probability of the predicted class."""
    if not signature.has_probabilities:
        return {"type": "null"} if not signature.is_open else {}
    number = {**NUMBER_OR_NULL, "minimum": 0, "maximum": 1.000001}
    return _one_or_list(signature, [number] * (signature.n_outputs or 1))


def probabilities_schema(signature: Signature) -> Schema:
    """The probability of each class, by its label."""
    if not signature.has_probabilities or signature.class_names is None:
        return {"type": "null"} if not signature.is_open else {}
    maps: list[Schema] = [Component("Probabilities", _by_label(names)) for names in signature.class_names]
    return _one_or_list(signature, maps)


def asked_schema(signature: Signature, *, is_batch: bool) -> Schema:
    """What was asked for by name: a value, or a list with one a row. Only what was asked for is there."""
    values: Schema = {
        "predict": prediction_schema(signature),
        "predict_proba": probabilities_schema(signature),
        # A number where there are two classes or none, one a class, or one for each pair of classes.
        "decision_function": {
            "anyOf": [
                NUMBER_OR_NULL,
                {"type": "array", "items": NUMBER_OR_NULL},
                {"type": "object", "additionalProperties": NUMBER_OR_NULL},
            ]
        },
        "score_samples": NUMBER_OR_NULL,
        "transform": {} if signature.outputs[0] != "transform" else prediction_schema(signature),
    }
    offered: Schema = {name: values[name] for name in signature.outputs}
    if is_batch:
        offered = {name: {"type": "array", "items": schema} for name, schema in offered.items()}
    return Component("BatchOutputs" if is_batch else "Outputs", object_of(offered, optional=tuple(offered)))


def one_of(labels: Sequence[Label]) -> Schema:
    """One of these values. Equal numbers are one, however they are spelt; true is not 1."""
    texts = [label for label in labels if isinstance(label, str)]
    booleans = [label for label in labels if isinstance(label, bool)]
    numbers = [label for label in labels if isinstance(label, int | float) and not isinstance(label, bool)]
    integers = [int(number) for number in numbers if float(number).is_integer()]
    parts: list[Schema] = []
    if texts:
        parts.append({"type": "string", "enum": texts, **_variable_names(texts)})
    if integers:
        parts.append({"type": "integer", "enum": integers})
    if len(booleans) > 1:
        parts.append({"type": "boolean"})
    elif booleans:
        parts.append({"const": booleans[0]})
    # Enumerations of fractions are beyond generators of clients.
    parts += [{"const": number} for number in numbers if not float(number).is_integer()]
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


def _variable_names(texts: list[str]) -> Schema:
    """Names for the members of an enumeration, where those that generators make would not all differ."""
    made = [_letters(text) if text[:1].isalpha() else f"value{place}" for place, text in enumerate(texts)]
    if len(set(made)) == len(made):
        return {}
    return {"x-enum-varnames": [f"VALUE_{place}" for place in range(len(texts))]}


_TAKEN_NAMES = frozenset({"cast", "cls", "d", "fielddict", "fromdict", "srcdict", "todict", "unset"})
"""What openapi-python-client calls its own variables and methods in a class that it makes."""


def _object_with_class(properties: dict[str, Schema]) -> Schema:
    """An object of exactly these members, of which a generator can make a class.

    Where two names become the same identifier, the members stand where it does not look: its class
    then has none of its own and takes any.
    """
    schema = object_of(properties)
    identifiers = set(map(_letters, properties))
    if len(identifiers) == len(properties) and not identifiers & _TAKEN_NAMES and "" not in identifiers:
        return schema
    return {"type": "object", "allOf": [{"allOf": [schema]}]}


def _letters(text: str) -> str:
    """What all identifiers made of a text have in common."""
    return re.sub(r"[\W_]+", "", text).lower()


def _by_label(names: tuple[str, ...]) -> Schema:
    return _object_with_class(dict.fromkeys(names, NUMBER_OR_NULL))


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _one_or_list(signature: Signature, schemas: list[Schema]) -> Schema:
    if signature.n_outputs == 0:
        return schemas[0]
    distinct: list[Any] = [schema for i, schema in enumerate(schemas) if schema not in schemas[:i]]
    items = distinct[0] if len(distinct) == 1 else {"anyOf": distinct}
    return {"type": "array", "minItems": signature.n_outputs, "maxItems": signature.n_outputs, "items": items}
