import {encryptionKey, newEncryptionKey} from '../encrypt/keys.ts';
import {Secret} from '../secret.ts';

export interface GeneratedKey {
  /** 64 hex characters: the secret itself. */
  key: string;
  fingerprint: string;
}

/** A new key for PHI_ENCRYPTION_KEY. It is kept nowhere: whoever asked for it has to. */
export function generateKey(): GeneratedKey {
  const key = newEncryptionKey();
  return {key, fingerprint: encryptionKey(new Secret(key)).fingerprint};
}
