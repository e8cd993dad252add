"""What a request asks and what a reply tells, read from their bytes. Pure.

``dialects`` the table: one row for each of an engine's paths · ``body``, ``form`` what was sent ·
``call`` what that asks for, of whom the ``catalogue`` knows · ``demand`` what it may cost ·
``prefix`` which conversation it is · ``usage`` what it did cost, ``member`` in a large reply
"""
