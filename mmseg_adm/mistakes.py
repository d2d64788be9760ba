"""What went wrong, in words for whom it concerns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# What MMEngine adds to the name of a type that is not registered: more about its own manual.
REGISTRY_MANUAL = '. Please check whether'
# Of a message of others, which may hold a whole config.
LONGEST = 300


def words_of(error: BaseException) -> str:
    """The message of an error of others' in one line, shortened."""
    text = _text(error).partition(REGISTRY_MANUAL)[0]
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def described(error: BaseException) -> str:
    """An error as a line; with its type where the message alone says nothing to a reader."""
    if isinstance(error, (ValueError, FileNotFoundError)) and (text := _text(error)):
        return text
    return f'{type(error).__name__}: {words_of(error)}'.removesuffix(': ')


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f'{error.strerror}: {error.filename}'
    # A KeyError prints the representation of its text.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return ' '.join(str(text).split())


@contextmanager
def building(setting: str) -> Iterator[None]:
    """Name the setting of a config with which the block fails.

    Anything but ``ValueError`` and ``OSError`` comes from code that took the config for right: an
    assertion, a key or an attribute that is not there.

    Args:
        setting: Its path in the config, such as ``'optim_wrapper'``.

    Raises:
        ValueError: With the setting and what was said of it.
        OSError: As it was.
    """
    try:
        yield
    except OSError:
        raise
    except ValueError as error:
        raise ValueError(f'{setting}: {error}') from error
    except Exception as error:
        raise ValueError(f'{setting} cannot be built: {described(error)}') from error
