"""The configuration: types, rules, and what is said when one is broken."""
