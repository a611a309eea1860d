"""A command's config as a typed record, whose every key and value is checked."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from harness.config import build
from harness.errors import ConfigError

Config = TypeVar("Config", bound=BaseModel)


def checked(kind: type[Config], config: Any, command: str) -> Config:
    """The config of a command as `kind`. Raises `ConfigError` naming key, value and choices."""
    resolved = {key: value for key, value in build.plain(config).items() if key != "experiment"}
    try:
        return kind.model_validate(resolved)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        said = first["msg"]
        if first["type"] == "extra_forbidden":
            said = f"no such key; choices: {', '.join(_beside(kind, first['loc']))}"
        raise ConfigError(f"{key}={first['input']!r}: {said}; see the whole config: {command} --cfg job") from None


def _beside(kind: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys that there are where one at this place is none."""
    for name in place[:-1]:
        kind = cast("type[BaseModel]", kind.model_fields[str(name)].annotation)
    return list(kind.model_fields)
