/**
 * The data key of a sealed object: what it is wrapped under, and how it is unwrapped without reading the object's body.
 * Wrapped keys are those of the AWS Encryption SDK's raw AES and raw RSA keyrings, also when they are kept outside of the
 * message: put into its header they would be read by other SDKs.
 */
import {
  constants,
  createDecipheriv,
  hkdfSync,
  privateDecrypt,
  publicEncrypt,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto';
import {
  AlgorithmSuiteIdentifier,
  EncryptedDataKey,
  KeyringNode,
  KeyringTraceFlag,
  MultiKeyringNode,
  NodeAlgorithmSuite,
  NodeDecryptionMaterial,
  NodeEncryptionMaterial,
  unwrapDataKey as revealDataKey,
} from '@aws-crypto/material-management-node';
import {RawAesKeyringNode, RawAesWrappingSuiteIdentifier} from '@aws-crypto/raw-aes-keyring-node';
import {integrityError} from './frame-check.ts';
import {type EncryptionKey, keyNamespace, type OpeningKey, type RecoveryPublicKey, recoveryNamespace} from './keys.ts';
import {algorithmSuite, type MessageHeader, type WrappedKey} from './message-header.ts';

export const suiteId = AlgorithmSuiteIdentifier.ALG_AES256_GCM_IV12_TAG16_HKDF_SHA512_COMMIT_KEY;

/** 32 random bytes, of which every sealed object has its own. */
export function newDataKey(): Buffer {
  return randomBytes(32);
}

/** Gives some work a new data key, which is wiped when the work has ended, well or not. */
export function withNewDataKey<T>(work: (dataKey: Buffer) => Promise<T>): Promise<T> {
  return wipedAfter(newDataKey(), work);
}

async function wipedAfter<T>(dataKey: Buffer, work: (dataKey: Buffer) => T | Promise<T>): Promise<T> {
  try {
    return await work(dataKey);
  } finally {
    dataKey.fill(0);
  }
}

function aesKeyring(key: EncryptionKey): RawAesKeyringNode {
  return new RawAesKeyringNode({
    keyNamespace,
    keyName: key.fingerprint,
    wrappingSuite: RawAesWrappingSuiteIdentifier.AES256_GCM_IV12_TAG16_NO_PADDING,
    // The library wipes the array it is given, and wants one of its own, not a view of a pool.
    unencryptedMasterKey: key.use((bytes) => new Uint8Array(bytes)),
  });
}

const oaep = {padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: 'sha256'};

/**
 * What the SDK's raw RSA keyring does (RSA-OAEP with SHA-256): namespace, and the key's name as provider info. The
 * encryption context is not bound to the wrapped key; the header's commitment and tag bind the data key to the message.
 */
class RsaKeyring extends KeyringNode {
  readonly #wrap: RecoveryPublicKey | undefined;
  readonly #unwrap: Extract<OpeningKey, {is: 'recovery'}> | undefined;

  constructor(keys: {wrap?: RecoveryPublicKey; unwrap?: Extract<OpeningKey, {is: 'recovery'}>}) {
    super();
    this.#wrap = keys.wrap;
    this.#unwrap = keys.unwrap;
  }

  async _onEncrypt(material: NodeEncryptionMaterial): Promise<NodeEncryptionMaterial> {
    const key = this.#wrap;
    if (!key) return material;
    const dataKey = revealDataKey(material.getUnencryptedDataKey());
    const wrapped = new EncryptedDataKey({
      providerId: recoveryNamespace,
      providerInfo: key.fingerprint,
      encryptedDataKey: new Uint8Array(publicEncrypt({key: key.publicKey, ...oaep}, dataKey)),
      rawInfo: new Uint8Array(Buffer.from(key.fingerprint)),
    });
    return material.addEncryptedDataKey(wrapped, KeyringTraceFlag.WRAPPING_KEY_ENCRYPTED_DATA_KEY);
  }

  async _onDecrypt(material: NodeDecryptionMaterial, wrappedKeys: EncryptedDataKey[]): Promise<NodeDecryptionMaterial> {
    const key = this.#unwrap;
    const own = wrappedKeys.find(
      ({providerId, providerInfo}) => providerId === recoveryNamespace && providerInfo === key?.fingerprint,
    );
    if (!own || !key) return material;
    return wipedAfter(privateDecrypt({key: key.privateKey, ...oaep}, own.encryptedDataKey), (dataKey) =>
      material.setUnencryptedDataKey(new Uint8Array(dataKey), {
        keyNamespace: recoveryNamespace,
        keyName: key.fingerprint,
        flags: KeyringTraceFlag.WRAPPING_KEY_DECRYPTED_DATA_KEY,
      }),
    );
  }
}

/** Hands a data key out that was made before, so that its maker knows it, too. */
class GivenDataKey extends KeyringNode {
  readonly #dataKey: Buffer;

  constructor(dataKey: Buffer) {
    super();
    this.#dataKey = dataKey;
  }

  async _onEncrypt(material: NodeEncryptionMaterial): Promise<NodeEncryptionMaterial> {
    if (this.#dataKey.every((byte) => byte === 0)) throw new Error('the data key was wiped before it was used');
    // A copy: the library wipes it.
    return material.setUnencryptedDataKey(new Uint8Array(this.#dataKey), {
      keyNamespace,
      keyName: 'data key',
      flags: KeyringTraceFlag.WRAPPING_KEY_GENERATED_DATA_KEY,
    });
  }

  async _onDecrypt(material: NodeDecryptionMaterial): Promise<NodeDecryptionMaterial> {
    return material;
  }
}

/** Looks for the data key also among wrapped keys that are not in the message. */
class WithMoreKeys extends KeyringNode {
  readonly #inner: KeyringNode;
  readonly #more: readonly EncryptedDataKey[];

  constructor(inner: KeyringNode, more: readonly WrappedKey[]) {
    super();
    this.#inner = inner;
    this.#more = more.map(libraryForm);
  }

  async _onEncrypt(material: NodeEncryptionMaterial): Promise<NodeEncryptionMaterial> {
    return material;
  }

  async _onDecrypt(material: NodeDecryptionMaterial, wrappedKeys: EncryptedDataKey[]): Promise<NodeDecryptionMaterial> {
    await this.#inner.onDecrypt(material, [...wrappedKeys, ...this.#more]);
    return material;
  }
}

function libraryForm({namespace, info, wrapped}: WrappedKey): EncryptedDataKey {
  return new EncryptedDataKey({
    providerId: namespace,
    providerInfo: info.toString(),
    encryptedDataKey: new Uint8Array(wrapped),
    rawInfo: new Uint8Array(info),
  });
}

/** The keys that a data key is wrapped under. */
export interface WrappingKeys {
  key: EncryptionKey;
  recovery?: RecoveryPublicKey | undefined;
}

/** The library's keyring to seal with. */
export function wrappingKeyring({key, recovery}: WrappingKeys, dataKey: Buffer): KeyringNode {
  const recoveryKeyring = recovery ? [new RsaKeyring({wrap: recovery})] : [];
  return new MultiKeyringNode({
    generator: new GivenDataKey(dataKey),
    children: [aesKeyring(key), ...recoveryKeyring],
  });
}

/** The library's keyring to open with. */
export function openingKeyring(keys: readonly OpeningKey[], more: readonly WrappedKey[]): KeyringNode {
  const children = keys.map((key) => (key.is === 'recovery' ? new RsaKeyring({unwrap: key}) : aesKeyring(key)));
  return new WithMoreKeys(new MultiKeyringNode({children}), more);
}

/** Wraps the data key of an object for keeping beside it. */
export async function wrapDataKey(
  dataKey: Buffer,
  {context}: Pick<MessageHeader, 'context'>,
  keys: WrappingKeys,
): Promise<WrappedKey[]> {
  const material = new NodeEncryptionMaterial(new NodeAlgorithmSuite(suiteId), {...context});
  await wrappingKeyring(keys, dataKey).onEncrypt(material);
  material.zeroUnencryptedDataKey();
  return material.encryptedDataKeys.map(({providerId, providerInfo, rawInfo, encryptedDataKey}) => {
    const info = Buffer.from(rawInfo ?? Buffer.from(providerInfo));
    const name = providerId === keyNamespace ? keys.key.fingerprint : info.toString();
    return {namespace: providerId, name, info, wrapped: Buffer.from(encryptedDataKey)};
  });
}

/** Where the data key of an object is, and what opens it. */
export interface WrappedDataKey {
  header: MessageHeader;
  keys: readonly OpeningKey[];
  /** Wrapped keys that are kept beside the object. */
  more: readonly WrappedKey[];
  /** The object, for errors. */
  what: string;
}

/**
 * Unwraps the data key of an object, holds the object's header to it (its commitment and its tag, which covers all of the
 * header), and gives it to some work; it is wiped when that has ended.
 * @throws BackupError DECRYPTION_FAILED
 */
export async function withUnwrappedDataKey<T>(
  {header, keys, more, what}: WrappedDataKey,
  work: (dataKey: Buffer) => T | Promise<T>,
): Promise<T> {
  const material = new NodeDecryptionMaterial(new NodeAlgorithmSuite(suiteId), {...header.context});
  await openingKeyring(keys, more)
    .onDecrypt(material, header.wrappedKeys.map(libraryForm))
    .catch(() => undefined);
  if (!material.hasUnencryptedDataKey) throw integrityError(what, 'the wrapped data key was altered');
  const unwrapped = Buffer.from(revealDataKey(material.getUnencryptedDataKey()));
  material.zeroUnencryptedDataKey();
  return wipedAfter(unwrapped, (dataKey) => {
    checkHeaderAgainst(dataKey, header, what);
    return work(dataKey);
  });
}

function checkHeaderAgainst(dataKey: Buffer, header: MessageHeader, what: string): void {
  const derive = (label: Buffer) => Buffer.from(hkdfSync('sha512', dataKey, header.messageId, label, 32));
  if (!timingSafeEqual(derive(Buffer.from('COMMITKEY')), header.commitment)) {
    throw integrityError(what, 'the data key is not the one that it was sealed with');
  }
  const suite = Buffer.alloc(2);
  suite.writeUInt16BE(algorithmSuite);
  const messageKey = derive(Buffer.concat([suite, Buffer.from('DERIVEKEY')]));
  const decipher = createDecipheriv('aes-256-gcm', messageKey, Buffer.alloc(12));
  try {
    decipher.setAAD(header.authenticated).setAuthTag(header.tag).final();
  } catch {
    throw integrityError(what, 'its header was altered');
  } finally {
    messageKey.fill(0);
  }
}
