"""The cluster home: a kopf operator around the same kernel, PDO, router and TDE code that runs embedded."""
