"""The backends: one module per engine, each with a `pacore_lab.interfaces.Backend`."""
