"""Keys: from their text to the admin's hand on them.

``key`` the text · ``key_record`` what is kept of one · ``keys`` what may be done with them ·
``bulk`` files of them · ``static`` those of the environment
"""
