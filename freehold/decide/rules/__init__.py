"""What may be used: who may have the data, licences, quality, places."""
