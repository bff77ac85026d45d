"""Section: settings about one thing, and how a setting is described."""

from pydantic import BaseModel, ConfigDict, Field


def setting(description: str, default=..., *, result: bool = True, **limits):
    """Describe one setting; one that changes no `result` makes nothing stale."""
    return Field(default, description=description, json_schema_extra={"result": result}, **limits)


class Section(BaseModel):
    """Settings about one thing; unknown ones are refused."""

    # A class, a folder or a column may be called 7.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
