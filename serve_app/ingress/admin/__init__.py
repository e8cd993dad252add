"""What operators and users ask of the gate itself, over HTTP; each handler is named in the routes.

``asked`` what such a request says, and how lists answer · ``keys``, ``tenancy``, ``accounts`` who
may call · ``ledger``, ``records`` what was used, and what was done · ``desk`` the line ·
``adapters`` what models have learned besides
"""
