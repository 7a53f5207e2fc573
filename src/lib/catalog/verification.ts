/** The result of a verification, stored beside the backup that it is about, and sealed as a manifest is. */
import * as z from 'zod';
import {type DocumentReading, readDocument, type SealingKey, sealDocument} from './manifest.ts';

/** What the sealing key is derived for (HKDF's info). */
export const verificationSealPurpose = 'loma-backup verification 2.0';

const stepSchema = z.object({
  id: z.string(),
  title: z.string(),
  status: z.enum(['passed', 'failed', 'skipped']),
  /** What was found, or why it failed or was skipped. */
  note: z.string(),
  durationMs: z.int().nonnegative(),
});

/** One step of a verification, as it went. */
export type VerificationStep = z.infer<typeof stepSchema>;

const verificationSchema = z.object({
  version: z.literal('2.0'),
  /** The key of the backup. */
  backup: z.string(),
  verifiedAt: z.iso.datetime(),
  /** `proved`: restored, and every digest of the restored database equal to the manifest's. */
  result: z.enum(['proved', 'failed']),
  toolVersion: z.string(),
  /** Of the server that the backup was restored on. */
  serverVersion: z.string(),
  /** How long the restore took: what a recovery would take, without the people. */
  recoveryMs: z.int().nonnegative().optional(),
  steps: z.array(stepSchema),
});

export type Verification = z.infer<typeof verificationSchema>;

/** What `list` and `status` show of it. */
export interface VerificationSummary {
  at: Date;
  isProved: boolean;
}

export const mostVerificationBytes = 1 << 20;

export function sealVerification(verification: Verification, key: SealingKey): string {
  return sealDocument(verificationSchema.parse(verification), key);
}

/** Reads a result; one about another backup is not believed. */
export function readVerification(
  bytes: Buffer,
  backup: string,
  keys: readonly SealingKey[],
): DocumentReading<Verification> {
  const reading = readDocument(bytes, verificationSchema, keys);
  if (reading.is !== 'document' || reading.document.backup === backup) return reading;
  return {is: 'invalid', reason: `it belongs to another backup (${reading.document.backup})`};
}
