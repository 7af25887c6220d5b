"""Many runs -> tables, curves and figures; knows runs only through `sorakit.records`."""
