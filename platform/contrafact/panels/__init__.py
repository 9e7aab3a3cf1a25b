"""Panels: how people arrive from them and go back, what they report, and money that cannot be paid twice."""
