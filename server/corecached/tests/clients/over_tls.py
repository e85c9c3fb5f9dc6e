"""A pytest plugin for the suite that pymemcache brings: every client of it speaks TLS and trusts TLS_AUTHORITY."""

import functools
import os
import ssl

from pymemcache.client import base

CONTEXT = ssl.create_default_context(cafile=os.environ["TLS_AUTHORITY"])
plain = base.Client.__init__


@functools.wraps(plain)
def secured(self, *arguments, **more):
    # Pools and rings pass on that they were given none.
    plain(self, *arguments, **{**more, "tls_context": CONTEXT})


base.Client.__init__ = secured
