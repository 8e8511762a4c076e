"""Templates and conditions: parsing, checking, and a sandbox that bounds what they may cost."""
