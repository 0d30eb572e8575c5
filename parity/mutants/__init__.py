"""How the harness itself is tested: realistic porting bugs, each planted into one side of a pair."""
