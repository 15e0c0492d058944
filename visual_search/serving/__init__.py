"""Search bundles over HTTP: a page for people, an API for programs.

Start at `app.create_app` (the application) and `server.serve` (the process around it). A request
passes `security` (who may ask), `limits` (how much may come in) and `queries` (what is asked), is
answered by `searching` (decode, embed in `batching`'s turns, search in `served_bundle`'s snapshot)
and written by `api`, `api_items` or `pages`; what goes wrong becomes one of the `problems`.

Nothing here loads torch, lightning or pandas, so that a server starts in a second or two.
"""
