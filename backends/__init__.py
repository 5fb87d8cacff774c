"""What samples: one module per engine, each a `pacore_lab.interfaces.Backend`."""
