"""Dashboards as code, the rules' and queries' checks, and the proof that every panel is alive (`make observe`)."""
