"""The check of a table against a signature, beside the decoding of the same body.

`python -m bench.micro` prints, for tables of 1000 rows and 30 columns and for single rows, the best of
several rounds: decoding by orjson, and the check, for each form that a table may have.
"""

from __future__ import annotations

import random
import timeit

import orjson

from fitserve.signature import Field, Signature

N_ROWS, N_COLUMNS, ROUNDS = 1000, 30, 15

FIELDS = (
    Field("", "number"),
    Field("", "number", is_nullable=True),
    Field("", "string"),
    Field("", "string", categories=("free", "pro", "team"), is_closed=True),
    Field("", "boolean"),
    Field("", "datetime", is_nullable=True),
    Field("", "any", is_nullable=True),
    Field("", "numeric"),
    Field("", "number", categories=(1, 2, 3), is_closed=True),
    Field("", "string", is_nullable=True, categories=("Bern", "Ulm")),
)
"""One column of each sort; a mixed table has them in turn."""


def signatures() -> dict[str, Signature]:
    numbers = tuple(Field(f"x{i}") for i in range(N_COLUMNS))
    nullable = tuple(Field(f"x{i}", is_nullable=i % 2 == 0) for i in range(N_COLUMNS))
    mixed = tuple(
        Field(f"x{i}", f.kind, f.is_nullable, f.categories, f.is_closed)
        for i, f in enumerate(FIELDS[i % len(FIELDS)] for i in range(N_COLUMNS))
    )
    return {"numbers": Signature(numbers), "half nullable": Signature(nullable), "mixed": Signature(mixed)}


def value(field: Field, rng: random.Random) -> object:
    if field.is_nullable and rng.random() < 0.1:
        return None
    if field.categories:
        return rng.choice(field.categories)
    match field.kind:
        case "string":
            return f"text {rng.randrange(10_000)}"
        case "boolean":
            return rng.random() < 0.5
        case "datetime":
            return f"2026-0{rng.randrange(1, 10)}-1{rng.randrange(10)}T0{rng.randrange(10)}:30:00Z"
        case "any":
            return rng.choice(["a", rng.random(), 7])
        case _:
            return rng.uniform(-100, 100)


def best_us(call, number: int) -> float:
    call()
    return min(timeit.repeat(call, number=number, repeat=ROUNDS)) / number * 1e6


def report(name: str, signature: Signature, rows: list[list[object]], number: int) -> None:
    names = signature.names
    forms = {
        "lists": rows,
        "records": [dict(zip(names, row, strict=True)) for row in rows],
        "columns": dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)),
    }
    for form, table in forms.items():
        body = orjson.dumps(table)
        decoded = orjson.loads(body)
        decode = best_us(lambda body=body: orjson.loads(body), number)
        check = best_us(lambda decoded=decoded: signature.check(decoded), number)
        print(f"{len(rows):5} x {len(names):<3} {name:14} {form:8} {decode:10.1f} {check:10.1f}")


def main() -> None:
    rng = random.Random(7)
    print(f"{'table':11} {'signature':14} {'form':8} {'decode µs':>10} {'check µs':>10}")
    for name, signature in signatures().items():
        report(name, signature, [[value(f, rng) for f in signature.inputs] for _ in range(N_ROWS)], 3)
    for n_columns in (4, N_COLUMNS):
        for name, signature in signatures().items():
            narrow = Signature(signature.inputs[:n_columns])
            report(name, narrow, [[value(f, rng) for f in narrow.inputs]], 2000)


if __name__ == "__main__":
    main()
