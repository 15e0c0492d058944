"""Pictures from the network: politely, safely, resumably.

==================  ================================================================================
``download.py``     a list of names and URLs into a folder
``scheduler.py``    who may be asked next, and when: order, rate, patience
``fetcher.py``      one request by aiohttp: to a checked address, its answer checked
``urls.py``         which may be asked for, and the addresses that they may lead to
``responses.py``    what an HTTP answer says about a picture
``manifest.py``     one line of JSON a picture, only ever appended
``settings.py``     what a download is allowed to do
``report.py``       where a download stands
==================  ================================================================================
"""
