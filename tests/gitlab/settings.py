"""What an administrator can choose about an instance, and what its version has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

Version = tuple[int, int]

HAS_TEST: Final[Version] = (16, 11)
"""*Project webhooks API*, "Trigger a test project webhook": introduced in GitLab 16.11."""
HAS_EVENTS: Final[Version] = (17, 3)
"""*Project webhooks API*, "Get a list of project webhook events": introduced in GitLab 17.3."""
HAS_RESEND: Final[Version] = (17, 4)
"""*Project webhooks API*, "Resend a project webhook event": introduced in GitLab 17.4."""
HAS_IDEMPOTENCY_KEY: Final[Version] = (17, 4)
"""*Webhooks*, "Delivery headers": `Idempotency-Key` introduced in GitLab 17.4."""
TELLS_RETRY_AFTER: Final[Version] = (18, 5)
"""Merge request 206603, "Return Retry-After header when rate limit is hit": before it a limited endpoint's 429 had none."""
HAS_SIGNING: Final[Version] = (19, 0)
"""*System hooks API*: `signing_token`, `token_present`, `signing_token_present` introduced in GitLab 19.0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    version: Version = (19, 0)
    external_url: str = "http://gitlab.example.com"
    """`external_url`, path included where the instance is under a relative root. Links, `X-Gitlab-Instance` and web URLs
    have it, whatever address the client used (lib/gitlab/pagination/offset_header_builder.rb, `base_request_uri`)."""
    premium: bool = True
    """Whether there are group webhooks (*Group webhooks API*: tier Premium, Ultimate)."""
    auto_disabling: bool = True
    """The ops flag `auto_disabling_web_hooks`: on on GitLab.com, off by default elsewhere
    (*Webhooks*, "Auto-disabled webhooks")."""
    signing_tokens: bool = True
    """The flag `webhook_signing_token`; off, `signing_token` is silently ignored (merge request 231325)."""
    allow_local_requests: bool = True
    """*Filtering outbound requests*: off by default for webhooks; on here, as receivers in tests are local."""
    webhook_timeout_seconds: float = 10
    """config/initializers/1_settings.rb, `webhook_timeout`; *Webhooks*, "Webhook receiver requirements"."""
    project_hooks: int = 100
    """*Application limits*, "Number of webhooks": 100 a project; 0: no limit."""
    group_hooks: int = 50
    """*Application limits*, "Number of webhooks": 50 a group; 0: no limit."""
    tests_per_minute: int = 5
    """*Rate limits on webhook operations*: 5 each minute, per user, for a given project or group; 0: no limit."""
    resends_per_minute: int = 5
    """*Rate limits on webhook operations*: likewise, a limit of its own."""
    hook_calls_per_minute: int = 0
    """lib/gitlab/web_hooks/rate_limiter.rb, `web_hook_calls` of the root namespace; 0: none, as on a new instance."""
    api_calls_per_minute: int = 0
    """*User and IP rate limits*, "Enable authenticated API request rate limit"; 0: off, as on a new instance."""
    log_bytes: int = 0
    """*Sidekiq job size limits*, "Limit": 0 none, as on a new instance; GitLab.com's is 5 MB. A hook event beyond it is
    logged without its data (app/services/web_hook_service.rb, `queue_log_execution_with_retry`)."""

    @property
    def signs(self) -> bool:
        return self.version >= HAS_SIGNING and self.signing_tokens
