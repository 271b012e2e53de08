"""The REST door under schemathesis: requests made from the server's own OpenAPI document, valid and invalid ones."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from bench.reliability.scenario import Findings

NAMES = {"model_name": "teacher", "model_version": "1"}
Kind = tuple[str, SearchStrategy[Case[Any]]]


def ask_all_pages(base_url: str, count: int, chosen_seed: int) -> Findings:
    """Up to `count` requests. Promises: statuses, types and bodies are the document's, and nothing invalid is answered.

    Most go to the pages for inference; a page without parameters has only one request.
    """
    found, seen = Findings(), Counter[str]()
    schema = schemathesis.openapi.from_url(f"{base_url}/openapi.json")
    load_all_checks()
    pages = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    found.promise(len(pages) == schema.statistic.operations.total, "the document has pages that cannot be read")
    kinds = [kind for page in pages for kind in _kinds(page)]
    weights = [5 if label.startswith("POST") else 1 for label, _ in kinds]
    with requests.Session() as session:
        for (label, cases), weight in zip(kinds, weights, strict=True):
            _ask(label, cases, session, max(count * weight // sum(weights), 1), chosen_seed, seen, found)
    found.figures = dict(seen)
    return found


def _kinds(operation: APIOperation[Any, Any, Any, Any]) -> list[Kind]:
    """Valid and invalid requests of a page; where it is about a model, also of the one that is here."""
    named = {parameter.name: NAMES[parameter.name] for parameter in operation.path_parameters}
    return [
        (f"{operation.label} {mode.value}", operation.as_strategy(mode, path_parameters=path))
        for mode in GenerationMode
        for path in ([{}, named] if named else [{}])
    ]


def _ask(
    label: str,
    cases: SearchStrategy[Case[Any]],
    session: requests.Session,
    count: int,
    chosen_seed: int,
    seen: Counter[str],
    found: Findings,
) -> None:
    @seed(chosen_seed)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(cases)
    def ask(case: Case[Any]) -> None:
        answer = case.call(session=session, timeout=30)
        seen[f"openapi, {label.split()[-1]}: {answer.status_code}"] += 1
        found.promise("Traceback" not in answer.text, f"{label}: a traceback: {answer.text[:200]}")
        try:
            # What the document allows may still have no answer, such as tensors that do not fit each other.
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        except (Failure, FailureGroup) as failure:
            found.promise(False, f"{label}: {failure}")

    with suppress(Unsatisfiable):  # a page without parameters has no invalid requests
        ask()
