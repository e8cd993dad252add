"""Users, who have a password, and visitors, who have none.

``user`` what is known of one · ``granting`` who may change whom · ``user_records`` how they lie in
the store · ``users`` what may be done with them · ``passwords`` · ``visitors``
"""
