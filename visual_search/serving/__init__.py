"""Search bundles over HTTP: a page for people, an API for programs.

====================  ==============================================================================
``app.py``            the application: routes, guards and what they share
``server.py``         the process around it: listening, stopping in order
``settings.py``       what a server may be told
``security.py``       who may ask, and who may write
``limits.py``         how much may come in
``connections.py``    each is waited for only so long
``queries.py``        what a request asks for, checked
``service.py``        what the routes share
``served_bundle.py``  bundles, each a snapshot that a newer generation replaces in one step
``batching.py``       pictures that come at the same time go through the encoder together
``searching.py``      decode, embed, search; at most so many at once
``writing.py``        adding and removing items while searches go on
``api.py``            for programs: search, bundles, health, numbers
``api_items.py``      items: read by everybody, written by who holds the token
``schemas.py``        the answers, as the OpenAPI document describes them
``docs_page.py``      their documentation: one page that loads nothing foreign
``problems.py``       what can go wrong, as problem+json or as a page
``metrics.py``        what Prometheus may ask
``pages.py``          for people: the search, its results, a run's report
``page_view.py``      what they show, made ready for the templates
``templating.py``     their templates: everything written into them is escaped
====================  ==============================================================================

Start at `app.create_app` (the application) and `server.serve` (the process around it). A request
passes `security` (who may ask), `limits` (how much may come in) and `queries` (what is asked), is
answered by `searching` (decode, embed in `batching`'s turns, search in `served_bundle`'s snapshot)
and written by `api`, `api_items` or `pages`; what goes wrong becomes one of the `problems`.

Nothing here loads torch, lightning or pandas, so that a server starts in a second or two.
"""
