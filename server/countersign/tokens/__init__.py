"""The second proof: JWTs and the keys that sign them. PyJWT and cryptography live here and nowhere else. No I/O."""
