"""What DIET is made of: which samples matter, how old vectors follow new tables, which units a step moves."""
