"""An app's settings, hints at probable mistakes in them, and the current app and request."""
