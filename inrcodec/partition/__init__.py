"""Cutting a signal into blocks and sharing a budget among their networks."""
