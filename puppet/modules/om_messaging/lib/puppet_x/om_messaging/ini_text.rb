# frozen_string_literal: true

module PuppetX; end
module PuppetX::OmMessaging; end

# The text of one configuration file, read as oslo.config reads it and changed line by line.
#
# Lines are kept as bytes, so any encoding and any line end survive. Whether the last line ends with a newline is a
# property of the file that no change alters. Puppet's own IniFile cannot be used: it leaves blank lines and empty
# sections behind, and loses the first of two sections of the same name.
class PuppetX::OmMessaging::IniText
  # A block of lines: the header's index (-1 for what stands before the first header), and one past the last line.
  Section = Struct.new(:name, :first, :stop)

  # A key's own line, and one past its last continuation line.
  Entry = Struct.new(:section, :first, :stop)

  HEADER = %r{\A\[(.*)\]\s*\z}n.freeze
  CONTINUATION = %r{\A[ \t]+\S}n.freeze
  ASSIGNMENT = %r{\A(([^\s#;=:\[][^=:]*?)\s*[=:][ \t]*)(.*?)(\s*)\z}n.freeze

  # Sections of this kind are kept in order at the end of a file, so that the result does not depend on which of
  # them was written first.
  ORDERED = %r{\Aoslo_messaging_}n.freeze

  def initialize(text)
    @lines = text.b.split("\n", -1)
    @lines = [''.b] if @lines.empty?
  end

  def to_s
    @lines.join("\n".b)
  end

  # The value of a key, or nil. A value of several lines, or of several assignments, comes joined by newlines.
  def get(section, key)
    found = entries(section, key)
    found.map { |entry| value_of(entry) }.join("\n") unless found.empty?
  end

  # The key gets this value and no other. The last assignment is the one that counts, so that is the one that stays.
  def set(section, key, value)
    *others, last = entries(section, key)
    return add(section, key, value) if last.nil?

    before, blanks = assignment(last).values_at(1, 4)
    @lines[last.first...last.stop] = [before + value.b + blanks]
    others.reverse_each { |entry| @lines.slice!(entry.first...entry.stop) }
  end

  # The key goes, and with it any section that has nothing left.
  def remove(section, key)
    entries(section, key).reverse_each do |entry|
      @lines.slice!(entry.first...entry.stop)
      remove_section(sections.find { |candidate| candidate.first == entry.section.first })
    end
  end

  private

  def sections
    found = [Section.new(nil, -1, 0)]
    @lines.each_with_index do |line, index|
      match = HEADER.match(line)
      found << Section.new(match[1], index, index) if match
      found.last.stop = index + 1
    end
    found
  end

  def entries(section, key)
    named(section).flat_map do |block|
      indexes = (block.first + 1...block.stop).select { |index| key_at(index) == key.b }
      indexes.map { |index| Entry.new(block, index, continuation_end(index, block.stop)) }
    end
  end

  def named(section)
    sections.select { |block| block.name == section.b }
  end

  def key_at(index)
    match = ASSIGNMENT.match(@lines[index])
    match && match[2]
  end

  def assignment(entry)
    ASSIGNMENT.match(@lines[entry.first])
  end

  def continuation_end(index, limit)
    index += 1
    index += 1 while index < limit && CONTINUATION.match?(@lines[index])
    index
  end

  def value_of(entry)
    rest = @lines[entry.first + 1...entry.stop].map(&:strip)
    [assignment(entry)[3], *rest].join("\n")
  end

  def add(section, key, value)
    line = "#{key} = ".b + value.b
    block = named(section).first
    return add_section(section, line) if block.nil?

    @lines.insert(position_in(block, key), line)
  end

  # Below the key's commented example if there is one, else below the last line that is not blank.
  def position_in(block, key)
    example = %r{\A\s*[#;]+\s*#{Regexp.escape(key.b)}\s*=}n
    indexes = (block.first...block.stop)
    found = indexes.find { |index| example.match?(@lines[index]) }
    found ||= indexes.to_a.reverse.find { |index| !blank?(index) }
    found + 1
  end

  def add_section(name, line)
    successor = ordered_tail.find { |block| block.name > name.b }
    if successor
      @lines.insert(successor.first, "[#{name}]".b, line, ''.b)
    else
      separator = (content_end.zero? ? [] : [''.b])
      @lines.insert(content_end, *separator, "[#{name}]".b, line)
    end
  end

  def ordered_tail
    sections.reverse.take_while { |block| ORDERED.match?(block.name.to_s) }.reverse
  end

  # Takes away what add_section had put there: the header, and the blank line behind or (at the end) before it.
  def remove_section(block)
    return unless (block.first + 1...block.stop).all? { |index| blank?(index) }

    last = block.stop == @lines.length
    @lines.delete_at(block.first)
    neighbour = last ? block.first - 1 : block.first
    @lines.delete_at(neighbour) if neighbour >= 0 && blank?(neighbour)
  end

  def blank?(index)
    @lines[index].strip.empty?
  end

  # One past the last line; behind a final newline there is no line.
  def content_end
    @lines.last.empty? ? @lines.length - 1 : @lines.length
  end
end
