/** The manifest of a backup: written last, sealed, and validated when it is read. docs/FORMAT.md describes every field. */
import {createHmac, type KeyObject, timingSafeEqual} from 'node:crypto';
import * as z from 'zod';
import {compressionNames} from '../config.ts';
import {canonicalJson, type Json} from './canonical-json.ts';

const count = z.int().nonnegative();
const digest = z.string().regex(/^[0-9a-f]{64}$/);
const fingerprint = z.string().regex(/^[0-9a-f]{16}$/);
const hex = z.string().regex(/^([0-9a-f]{2})*$/);

const tableSchema = z.object({
  table: z.string().min(1),
  columns: z.string(),
  rows: count,
  bytes: count,
  sha256: digest,
});

const manifestSchema = z.object({
  /** Of the manifest's form. Backups of the procedure before this program have "1.0", or no manifest. */
  version: z.literal('2.0'),
  /** When the backup was started, UTC, ISO 8601. */
  timestamp: z.iso.datetime(),
  database: z.string(),
  /** Of the stored object, in bytes. */
  size: count,
  compressed: z.literal(true),
  encrypted: z.literal(true),
  /** How long it was meant to be kept when it was made. */
  retentionDays: count,
  compression: z.enum(compressionNames),
  label: z.string(),
  /** Never pruned. */
  hold: z.boolean(),
  durationMs: count,
  /** Of the plain dump. */
  dumpBytes: count,
  compressedBytes: count,
  objects: z.array(z.object({key: z.string(), size: count, sha256: digest, partSize: count})).length(1),
  serverVersion: z.string(),
  /** Of the dump: UTF8, but for a database in SQL_ASCII. */
  encoding: z.string(),
  /** Of the source database; manifests of the first versions don't have it, nor the next. */
  serverEncoding: z.string().optional(),
  /** Of the source database on its server, at the start: `pg_database_size`. */
  databaseBytes: count.optional(),
  /** Roles that the dump names (in policies and user mappings): the target's server must have them. */
  roles: z.array(z.string()),
  pgDumpVersion: z.string(),
  toolVersion: z.string(),
  /** Of the key that opens it: the one that sealed the object, or the one that `keys rotate` wrapped its data key under. */
  keyFingerprint: fingerprint,
  /** The object's data key, wrapped once more since the object was written: as it would stand in the object's header. */
  wrappedKeys: z.array(z.object({namespace: z.string(), providerInfo: hex, wrappedKey: hex})).optional(),
  /** A seal that whoever can open the object can check; see `dataKeySeal`. */
  dataKeySeal: digest.optional(),
  /** Patterns of tables whose rows were left out. */
  excludedTableData: z.array(z.string()),
  contents: z.object({
    tables: z.array(tableSchema),
    schema: z.object({bytes: count, sha256: digest}),
  }),
});

export type Manifest = z.infer<typeof manifestSchema>;

/** The manifest that the older procedure wrote: every field may be missing, and none of it was sealed. */
const legacySchema = z.looseObject({version: z.literal('1.0'), database: z.string().optional()});

const sealSchema = z.object({
  algorithm: z.literal('HMAC-SHA-256'),
  /** Of the encryption key that the sealing key was derived from. */
  keyFingerprint: fingerprint,
  value: digest,
});

/** A key to seal with: derived from the encryption key of that fingerprint. */
export interface SealingKey {
  fingerprint: string;
  key: KeyObject;
}

/** What the sealing key is derived for (HKDF's info). */
export const manifestSealPurpose = 'loma-backup manifest 2.0';
/** The same for the seal under the object's data key. */
export const dataKeySealPurpose = 'loma-backup manifest 2.0 data key';

/** Longer manifests are refused unread: 64 MiB is a database of 250,000 tables. */
export const mostManifestBytes = 64 << 20;

function sealValue(document: Json, key: SealingKey): string {
  return createHmac('sha256', key.key).update(canonicalJson(document)).digest('hex');
}

/** A JSON object. */
export type JsonObject = {[name: string]: Json | undefined};

/**
 * The second seal of a manifest: an HMAC under a key derived from its object's data key, over everything but the two
 * seals. Whoever can open the object can check it, also with the recovery key, when the PHI key is lost.
 */
export function dataKeySeal(document: JsonObject, key: KeyObject): string {
  const {seal: _, dataKeySeal: __, ...rest} = document;
  return sealValue(rest, {fingerprint: '', key});
}

export function fitsDataKeySeal(document: JsonObject, key: KeyObject): boolean {
  return typeof document.dataKeySeal === 'string' && equalHex(dataKeySeal(document, key), document.dataKeySeal);
}

/** Seals any document of ours: the same members and one more, `seal`. */
export function sealDocument(document: JsonObject, key: SealingKey): string {
  const seal = {algorithm: 'HMAC-SHA-256', keyFingerprint: key.fingerprint, value: sealValue(document, key)};
  return `${JSON.stringify({...document, seal}, undefined, 2)}\n`;
}

/** `verified`: one of our keys sealed it, unchanged since. `unchecked`: the key that sealed it is not at hand. */
export type SealState = 'verified' | 'unchecked';

/**
 * A document that was read back: what it says, and whether that can be believed. `json` is all of it but the seal, also
 * members that only a later version knows.
 */
export type DocumentReading<T> =
  | {is: 'document'; document: T; seal: SealState; sealedBy: string; json: JsonObject}
  | {is: 'legacy'; database: string | undefined}
  | {is: 'invalid'; reason: string};

/** Reads a sealed document and holds it to its schema. */
export function readDocument<T>(bytes: Buffer, schema: z.ZodType<T>, keys: readonly SealingKey[]): DocumentReading<T> {
  let json: unknown;
  try {
    json = JSON.parse(bytes.toString());
  } catch {
    return {is: 'invalid', reason: 'it is not JSON'};
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    return {is: 'invalid', reason: 'it is not a JSON object'};
  }
  const legacy = legacySchema.safeParse(json);
  if (legacy.success) return {is: 'legacy', database: legacy.data.database};
  const {seal: sealJson, ...rest} = json as {[name: string]: Json} & {seal?: unknown};
  const seal = sealSchema.safeParse(sealJson);
  if (!seal.success) return {is: 'invalid', reason: 'it is not sealed'};
  const key = keys.find(({fingerprint}) => fingerprint === seal.data.keyFingerprint);
  const isBroken = key !== undefined && !equalHex(sealValue(rest, key), seal.data.value);
  if (isBroken) return {is: 'invalid', reason: 'it was altered: its seal does not fit'};
  const parsed = schema.safeParse(rest);
  if (!parsed.success) return {is: 'invalid', reason: describeIssue(parsed.error)};
  return {
    is: 'document',
    document: parsed.data,
    seal: key ? 'verified' : 'unchecked',
    sealedBy: seal.data.keyFingerprint,
    json: rest,
  };
}

function equalHex(a: string, b: string): boolean {
  return a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}

function describeIssue(error: z.ZodError): string {
  const [issue] = error.issues;
  return issue ? `${issue.path.join('.') || 'it'}: ${issue.message}` : 'it has another form';
}

/** @throws ZodError for a manifest that could not be read again */
export function sealManifest(manifest: Manifest, key: SealingKey): string {
  return sealDocument(manifestSchema.parse(manifest), key);
}

/** Reads a manifest, and holds it to the backup that it lies beside. */
export function readManifest(bytes: Buffer, key: string, keys: readonly SealingKey[]): DocumentReading<Manifest> {
  const reading = readDocument(bytes, manifestSchema, keys);
  if (reading.is !== 'document') return reading;
  const described = reading.document.objects[0]?.key;
  if (described !== key) return {is: 'invalid', reason: `it belongs to another backup (${described})`};
  return reading;
}
