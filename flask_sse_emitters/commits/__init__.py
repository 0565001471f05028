"""Events that are published once a transaction of the app has committed, and only then."""
