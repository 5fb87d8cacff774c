"""Plug-ins for PaCoRe Lab; `conf/` holds their options."""
