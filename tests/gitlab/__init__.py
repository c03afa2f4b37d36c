"""A faithful GitLab for tests: its hooks API, the hook events it fires, their log, and how it disables what fails.

It judges the GitLab adapter, so nothing here is what would be convenient: each rule names where GitLab says it, as

* a file of gitlab-org/gitlab (``app/models/concerns/web_hooks/auto_disabling.rb``), read at 18.x and 19.0;
* a page of docs.gitlab.com (*Webhooks*, docs.gitlab.com/user/project/integrations/webhooks/).

All decisions are pure (`instance.GitLab`, `api.Api`): calls in, replies and deliveries out, time from an injected clock.
Three edges perform them: `server.GitLabServer` over HTTP, `in_process.InProcess` under python-gitlab without a socket,
`sender.HttpSender` for the hook events. `faults.Faults` loses, delays or replaces any call before or after it took effect.

Left out, as no adapter can tell: rendering of custom webhook templates, following a receiver's redirects, silent mode,
recursion detection, DPoP, sudo, the limit of three refs in one push.
"""
