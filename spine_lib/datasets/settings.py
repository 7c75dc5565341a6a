"""Settings that are checked when they are made and never changed, by pydantic."""

import re
import reprlib
from typing import Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from spine_lib import SpineError

Share = Annotated[float, Field(ge=0, le=1)]
"""A probability, or a part of a whole."""


def short_repr(value: Any) -> str:
    """Return a value as text of at most 80 characters; `repr` may be endless, or raise an error."""
    try:
        return f"{reprlib.repr(value):.80}"
    except ValueError:  # a whole number of more than 4300 digits
        return "a number of thousands of digits"


class Settings(BaseModel):
    """Settings that are checked when they are made and never changed.

    Raises:
        SpineError: naming the first setting that is unknown or not allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            text = self._first_fault(error)
            raise SpineError(f"{type(self).__name__.lower()}: {text}") from error

    def changed(self, **values: Any) -> Self:
        """Return a copy with other values, checked like a new one."""
        return type(self)(**{**dict(self), **values})

    @field_validator("*", mode="before")
    @classmethod
    def _require_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("it must not be true or false")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise ValueError("it must have names as keys")
        return value

    @classmethod
    def _first_fault(cls, error: ValidationError) -> str:
        fault = error.errors()[0]
        key = fault["loc"][0] if fault["loc"] else "it"
        if fault["type"] == "extra_forbidden":
            return f"there is no setting {key!r:.40}; there are {', '.join(cls.model_fields)}"
        if fault["type"] == "missing":
            return f"{key} is missing"
        wanted = re.sub(r"^(Value error, |(Input|Tuple|Data) (?=should))", "", fault["msg"])
        wanted = re.sub("^should", "it must", wanted)
        return f"{key} is {short_repr(fault['input'])}; {wanted}"
