"""One form for everything that goes wrong: ``{"error": {"code", "message", "hint", "faults"}}``."""

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from medkg.contracts.errors import ContractError, MedkgError, ResourceUnavailableError
from medkg.contracts.messages import Fault
from medkg.storage.ledger_answers import FaultAnswer

AnyFault = Fault | FaultAnswer


class NotFoundError(MedkgError):
    """What was asked for does not exist, or belongs to another tenant."""

    code = "not_found"


class SettledError(MedkgError):
    """What was asked to be done has been done, or its opposite."""

    code = "already_decided"


class GoneError(MedkgError):
    """What was asked for was there once."""

    code = "message_gone"


class RefusedError(MedkgError):
    """A submission with faults."""

    code = "job_rejected"

    def __init__(self, message: str, faults: Sequence[AnyFault], job_id: str = "") -> None:
        super().__init__(message, job_id=job_id)
        self.faults = faults


class RequestFault(RefusedError):
    """A request that says something that cannot be meant."""

    code = "request_invalid"


def answer(
    status: int, code: str, message: str, *, hint: str = "", faults: Sequence[AnyFault] = (), job_id: str = ""
) -> JSONResponse:
    """An error as every route gives it."""
    error: dict[str, object] = {"code": code, "message": message}
    if hint:
        error["hint"] = hint
    if job_id:
        error["job_id"] = job_id
    if faults:
        error["faults"] = [{"pointer": f.pointer, "message": f.message, "hint": f.hint} for f in faults]
    return JSONResponse({"error": error}, status_code=status)


def install(app: FastAPI) -> None:
    """Answer every exception in the one form."""
    app.add_exception_handler(MedkgError, _medkg)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


def _medkg(_: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RefusedError):
        return answer(
            422, error.code, error.message, faults=error.faults, job_id=str(error.context.get("job_id") or "")
        )
    if isinstance(error, NotFoundError):
        return answer(404, error.code, error.message)
    if isinstance(error, SettledError | GoneError):
        return answer(409 if isinstance(error, SettledError) else 410, error.code, error.message)
    if isinstance(error, ContractError):
        return answer(422, error.code, error.message)
    if isinstance(error, ResourceUnavailableError):
        return answer(503, error.code, error.message, hint="try again in a moment")
    return answer(500, error.code if isinstance(error, MedkgError) else "internal_error", str(error))


def _validation(_: Request, error: Exception) -> JSONResponse:
    details = error.errors() if isinstance(error, RequestValidationError) else []
    faults = [Fault("/" + "/".join(map(str, detail["loc"])), detail["msg"]) for detail in details]
    return answer(422, "request_invalid", "the request has faults", faults=faults)


def _http(_: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = str(error.detail) if isinstance(error, HTTPException) else str(error)
    code = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large"}.get(status, "http_error")
    response = answer(status, code, detail)
    if isinstance(error, HTTPException):
        response.headers.update(error.headers or {})  # 405 says what is allowed
    return response
