"""Reading the selection of a request by the model of its source."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from medkg.contracts.document import AdapterRequest
from medkg.contracts.errors import ContractError

S = TypeVar("S", bound=BaseModel)


def read_selection(request: AdapterRequest, model: type[S]) -> S:
    """What is selected.

    Raises:
        ContractError: it breaks the model; every fault is named with its place.
    """
    try:
        return model.model_validate(request.selection)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        faults = "; ".join(f"/{'/'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in details)
        raise ContractError(f"reading the selection of source {request.source!r}: {faults}") from error
