"""The event display: `receiver` takes events over HTTP, `text` prints them, `kept` keeps them, `stream` and ``page.html``
show them as they come, `request_log` tells of requests.
"""
