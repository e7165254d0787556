"""One section of the configuration, read key by key.

A section is taken from the file and overridden by the environment. Whoever reads it names each key
once; whatever is left over at the end is unknown, and so an error. Every error names where the
value stood, its section and its key; the value itself is never repeated, for it may be a secret.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

from app import values

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used; the text says where, which key, and what to do."""

    def __init__(self, where: str, section: str, key: str | None, problem: str) -> None:
        place = f"[{section}] {key}" if key else f"[{section}]" if section else ""
        super().__init__(": ".join(part for part in (where, place, problem) if part))
        self.where, self.section, self.key, self.problem = where, section, key, problem


class Settings:
    """The keys of one section that are not read yet.

    A value of the environment is a text; lists are separated by commas there. `folder` is what
    relative paths are relative to.
    """

    def __init__(
        self, file: Path, section: str, values: Mapping[str, object], environ: Mapping[str, str]
    ) -> None:
        self._file = file
        self._section = section
        self._values = dict(values)
        self._prefix = f"ARCHIVE_{section.replace('.', '_')}_".upper()
        self._environ = {
            name.removeprefix(self._prefix).lower(): value
            for name, value in environ.items()
            if name.startswith(self._prefix)
        }
        self._origin: dict[str, str] = {}
        self.folder = file.parent

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default the key must be there."""
        value = self._take(key, default)
        if not isinstance(value, str):
            self.fail(key, "must be a text in quotes")
        return value.strip()

    def text_or_file(self, key: str) -> str:
        """A text that may also stand in a file, which the environment names in `..._FILE`.

        The file counts beside a variable that is empty, as a container's may be for good.
        """
        named = self._environ.pop(f"{key}_file", None)
        if named is not None:
            if self._environ.get(key):
                self.fail(key, f"give {self.variable(key)} or {self.variable(key)}_FILE, not both")
            self._environ[key] = self._contents(key, named)
        return self.text(key)

    def secret(self, key: str) -> str:
        """A text that may not stand in the configuration file; "" if there is none."""
        self._values.setdefault(key, "")
        value = self.text_or_file(key)
        if value and not self.from_environment(key):
            self.fail_secret(key)
        return value

    def fail_secret(self, key: str) -> NoReturn:
        """Raise the error of a secret that stands in the configuration file."""
        self.fail(
            key,
            "a secret has no place in this file: take it out and set"
            f" {self.variable(key)} or {self.variable(key)}_FILE",
        )

    def whole(self, key: str, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        value = self._take(key, None)
        if isinstance(value, str) and self.from_environment(key) and re.fullmatch("[0-9]+", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fail(key, f"must be a whole number from {least} to {most}")
        return value

    def truth(self, key: str) -> bool:
        """true or false; one that is left out is false."""
        value = self._take(key, False)
        if self.from_environment(key) and value in ("true", "false"):
            value = value == "true"
        if not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return value

    def words(self, key: str, allowed: frozenset[str], *, least: int = 1) -> frozenset[str]:
        """A list of some of the allowed words, at least so many."""
        value = self._take(key, None)
        if isinstance(value, str) and self.from_environment(key):
            value = [word.strip() for word in value.split(",") if word.strip()]
        if (
            not isinstance(value, list)
            or len(value) < least
            or not allowed.issuperset(map(str, value))
        ):
            self.fail(key, "must be a list of some of: " + ", ".join(sorted(allowed)))
        return frozenset(map(str, value))

    def texts(self, key: str, *, required: bool = False) -> list[str]:
        """A list of texts; one that is not required may be left out."""
        value = self._take(key, None if required else [])
        if isinstance(value, str) and self.from_environment(key):
            value = [text.strip() for text in value.split(",") if text.strip()]
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            self.fail(key, "must be a list of texts in quotes")
        if required and not value:
            self.fail(key, "must not be empty")
        return value

    def parsed(self, key: str, parse: Callable[[str], T], default: str | None = None) -> T:
        """A text that `parse` turns into a value; its ValueError becomes a ConfigError."""
        text = self.text(key, default)
        try:
            return parse(text)
        except ValueError as error:
            self.fail(key, str(error))

    def path(self, key: str, base: Path | None = None) -> Path:
        """A path, relative to `base` or else to the folder of the configuration file."""
        found = self.optional_path(key, None, base)
        if found is None:
            self.fail(key, "must name a path")
        return found

    def optional_path(
        self, key: str, default: str | None = "", base: Path | None = None
    ) -> Path | None:
        """The same; None for an empty text."""
        found = self.parsed(key, lambda text: values.path(text) if text else None, default)
        return found and (base or self.folder) / found

    def from_environment(self, key: str) -> bool:
        """Whether the value that was read stood in the environment."""
        return self._origin.get(key, "").startswith("environment")

    def variable(self, key: str) -> str:
        """The name in the environment that overrides this key."""
        return f"{self._prefix}{key.upper()}"

    def fail(self, key: str, problem: str) -> NoReturn:
        """Raise the error of one key."""
        where = self._origin.get(key, str(self._file))
        raise ConfigError(where, self._section, key, problem) from None

    def finish(self) -> None:
        """Every key was read: refuse what is left over."""
        for key in self._environ:
            self._origin[key] = f"environment, {self.variable(key)}"
            self.fail(key, "is no key of this section; take it out")
        for key in self._values:
            self.fail(key, "is no key of this section; take it out")

    def _take(self, key: str, default: object) -> object:
        value = self._values.pop(key, default)
        self._origin[key] = str(self._file)
        if key in self._environ:
            self._origin[key] = f"environment, {self.variable(key)}"
            value = self._environ.pop(key)
        if value is None:
            self.fail(key, "is missing")
        return value

    def _contents(self, key: str, name: str) -> str:
        self._origin[key] = f"environment, {self.variable(key)}_FILE"
        try:
            text = (self.folder / values.path(name)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError):
            self.fail(key, "the file that it names cannot be read")
        if not text.strip():
            self.fail(key, "the file that it names is empty")
        return text
