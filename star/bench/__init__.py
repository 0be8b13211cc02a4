"""Methods of repair over data: measured in one run, told as tables and plots; used by the benchmark only."""
