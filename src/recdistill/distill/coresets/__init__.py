"""Selectors and controls: what learned distillation is measured against. One per file."""
