// Which pictures can be asked about, told from their first bytes.

export const LARGEST_PICTURE = 20 * 1024 * 1024;

export type PictureType = 'image/png' | 'image/jpeg' | 'image/webp';

export function pictureType(bytes: Uint8Array): PictureType | undefined {
  const begins = (at: number, ...expected: number[]): boolean =>
    expected.every((byte, index) => bytes[at + index] === byte);
  if (begins(0, 0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a)) {
    return 'image/png';
  }
  if (begins(0, 0xff, 0xd8, 0xff)) {
    return 'image/jpeg';
  }
  if (begins(0, 0x52, 0x49, 0x46, 0x46) && begins(8, 0x57, 0x45, 0x42, 0x50)) {
    return 'image/webp';
  }
  return undefined;
}

/** Why a picture cannot be asked about, in sentences; nothing where it can. */
export function refusal(name: string, bytes: Uint8Array): string | undefined {
  if (bytes.byteLength > LARGEST_PICTURE) {
    const size = Math.ceil(bytes.byteLength / 1024 / 1024);
    return `${name} has ${size} MB. Pictures may have ${LARGEST_PICTURE / 1024 / 1024} MB at most: crop it to what matters, or save it smaller.`;
  }
  if (!pictureType(bytes)) {
    return `${name} is no PNG, JPEG or WebP picture. Save it as one of these and add it again.`;
  }
  return undefined;
}

export function isPictureName(path: string): boolean {
  return /\.(?:png|jpe?g|webp)$/i.test(path);
}
