"""The port that GitLab's requests come to, alike for one source and for many."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, Problem

if TYPE_CHECKING:
    from wellhead.http_server import HttpServer

    from .config import GitlabConfig

SETTLE_SECONDS: Final = 1.0
"""Beyond the time that a delivery may take."""

_log = logging.getLogger(__name__)


async def listen(server: HttpServer, config: GitlabConfig) -> tuple[str, int]:
    """Take requests from now on; where. Raises `ConfigError` where the address is taken, or is none of ours."""
    try:
        bound = await server.start(config.address, config.port)
    except OSError as error:
        where = f"{config.address or '*'}:{config.port}"
        reason = os.strerror(error.errno) if error.errno else error.strerror or error
        raise ConfigError([Problem("port, PORT", f"cannot listen on {where}: {reason}")]) from None
    _log.info("GitLab's requests are taken", extra={"address": bound[0], "port": bound[1]})
    return bound
