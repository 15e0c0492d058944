"""Pictures from the network: politely, safely, resumably.

==================  ================================================================================
``download.py``     a list of names and URLs into a folder
``scheduler.py``    who may ask which host when: order, rate, patience
``fetcher.py``      one picture: redirects followed, checked before it is believed
``connections.py``  one connection to one checked address
``urls.py``         which may be asked for, and the addresses that they may lead to
``responses.py``    what an HTTP answer says about a picture
``manifest.py``     one line of JSON a picture, only ever appended
``settings.py``     what a download is allowed to do
``report.py``       where a download stands
==================  ================================================================================
"""
