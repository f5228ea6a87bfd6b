"""The certificate of a distilled dataset as one page that a person reads."""
