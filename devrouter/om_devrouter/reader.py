"""Typed access to the attributes of one configuration entity, or one sentence why not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from om_devrouter import errors, schema

SERVICE_PORTS = {"amqp": 5672, "amqps": 5671}

Attributes = Mapping[str, Any]
_T = TypeVar("_T")


class Reader:
    """Typed access to one entity's attributes; every complaint names the entity and the attribute."""

    def __init__(self, entity: str, attributes: Attributes, label: str | None = None) -> None:
        name = attributes.get("name")
        self.label = label or (f"{entity} {name!r}" if isinstance(name, str) else entity)
        self._attributes = attributes
        unknown = sorted(set(attributes) - schema.CONFIG_ATTRIBUTES[entity])
        if unknown:
            raise errors.DevRouterError(f"{self.label}: unknown attribute {', '.join(map(repr, unknown))}.")
        for name, off in schema.UNSUPPORTED[entity].items():
            if attributes.get(name) is not None and attributes[name] not in off:
                raise errors.DevRouterError(f"{self.label}: {name} is not supported; use qdrouterd.")

    def bad(self, name: str, expected: str) -> errors.DevRouterError:
        """The value itself is not shown: it may be a secret put in the wrong place."""
        return errors.DevRouterError(f"{self.label}: {name} must be {expected}.")

    def text(self, name: str, default: _T) -> Any:
        value = self._attributes.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or not value:
            raise self.bad(name, "a non-empty string")
        return value

    def required(self, name: str) -> str:
        if self._attributes.get(name) is None:
            raise errors.DevRouterError(f"{self.label}: {name} is missing.")
        return str(self.text(name, ""))

    def flag(self, name: str, default: bool) -> bool:
        value = self._attributes.get(name)
        if value is None:
            return default
        if isinstance(value, str) and value.lower() in ("yes", "true", "on", "no", "false", "off"):
            return value.lower() in ("yes", "true", "on")  # schema.py's BooleanType takes these words
        if not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return value

    def number(self, name: str, default: int, low: int, high: int = 2**31 - 1) -> int:
        value = self._attributes.get(name)
        if value is None:
            return default
        try:
            result = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
        except ValueError:
            result = None
        if result is None or not low <= result <= high:
            raise self.bad(name, f"a whole number from {low} to {high}")
        return result

    def choice(self, name: str, default: str, known: tuple[str, ...]) -> str:
        value = str(self.text(name, default))
        if value not in known:
            raise self.bad(name, f"one of {', '.join(known)}")
        return value

    def port(self, name: str) -> int:
        """A port is a number, the text of one, or one of AMQP's two service names; 0 means any free port."""
        value = self._attributes.get(name, "amqp")
        if isinstance(value, str) and value in SERVICE_PORTS:
            return SERVICE_PORTS[value]
        return self.number(name, 0, 0, 65535)
