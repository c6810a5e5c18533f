"""Errors of the operating system and of file systems, in words for people. It must not import a library."""

import errno


def is_no_space(error: BaseException) -> bool:
    """True for an error that means a full disk or a used-up quota."""
    return isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
