"""Which members does the API have? Every message below GenerateContentRequest, with its members and their types.

Source: discovery document ``aiplatform.v1``, revision 20261106, read 2026-11-23 (ships inside google-api-python-client;
https://aiplatform.googleapis.com/$discovery/rest?version=v1). A test compares every entry with that document: a newer
client that brings new members fails the test, never a user's file.

Notation: ``string``, ``bytes`` (base64 text), ``bool``, ``int32``, ``int64`` (also as text), ``number``, ``any``,
``<A|B>`` a word of a list, ``[x]`` a list, ``{x}`` an object with free names, a capitalised word another message.
"""

from __future__ import annotations

import functools
import re

import msgspec

#: The day of the table below.
REVISION_DATE = "2026-11-06"
#: The six JSON kinds, worded for messages.
OBJECT, LIST, TEXT, NUMBER, BOOL, NULL = "an object", "a list", "a text", "a number", "true or false", "null"


class Type(msgspec.Struct, frozen=True):
    """What a member may hold."""

    #: JSON kinds the service's parser takes; empty means any.
    kinds: frozenset[str] = frozenset()
    #: The message an object is, or "".
    message: str = ""
    #: What the elements of a list, or the values of a map, hold.
    inner: Type | None = None
    #: The words of an enumeration, upper case.
    words: frozenset[str] = frozenset()
    #: ``int32``, ``int64``, ``number``, ``bytes`` or "".
    scalar: str = ""
    #: Whether a JSON Schema stands here: free-form, yet with names the importer is known to refuse.
    is_json_schema: bool = False


#: Who has what is newer than the document.
_GENAI, _BETA = "google-genai 3.6.1 of 2026-11", "the API's v1beta1 of 2026-11-06"
#: Members that the document does not have yet, and who has them. `make api` finds them.
NEWER_MEMBERS: dict[tuple[str, str], str] = {
    ("GenerateContentRequest", "serviceTier"): _GENAI,
    ("GenerationConfig", "modelConfig"): _BETA,
    ("Part", "mediaProcessing"): _BETA,
    ("RagRetrievalConfig", "hybridSearch"): _BETA,
    ("VertexRagStore", "ragCorpora"): _BETA,
    ("VertexRagStore", "storeContext"): _BETA,
    ("VideoMetadata", "contentLayers"): _GENAI,
    ("PartMediaResolution", "numTokens"): _GENAI,
    **{
        (message, name): _GENAI
        for message in ("Part", "FunctionResponsePart")
        for name in ("audioMetadata", "documentMetadata", "spreadsheetMetadata")
    },
    ("FunctionResponsePart", "videoMetadata"): _GENAI,
    ("FunctionResponsePart", "mediaResolution"): _GENAI,
    ("ReplicatedVoiceConfig", "consentAudio"): _GENAI,
    ("ReplicatedVoiceConfig", "voiceConsentSignature"): _GENAI,
}
#: The same for words, which are taken.
NEWER_WORDS: dict[tuple[str, str], dict[str, str]] = {
    ("GenerationConfigThinkingConfig", "thinkingLevel"): {"XHIGH": _GENAI},
}
ANY = Type()
JSON_SCHEMA = Type(is_json_schema=True)
#: Free-form members that hold a JSON Schema; the document calls them ``any``.
_JSON_SCHEMAS = frozenset({"responseJsonSchema", "parametersJsonSchema", "schema"})
_SCALARS = {
    "string": Type(frozenset({TEXT})),
    "bytes": Type(frozenset({TEXT}), scalar="bytes"),
    "bool": Type(frozenset({BOOL})),
    "int32": Type(frozenset({NUMBER}), scalar="int32"),
    # JSON has no 64-bit integers: protobuf's JSON writes them as text and reads both.
    "int64": Type(frozenset({NUMBER, TEXT}), scalar="int64"),
    "number": Type(frozenset({NUMBER}), scalar="number"),
    "any": ANY,
}


@functools.cache
def messages() -> dict[str, dict[str, str]]:
    """Return every message's members and their types, in the notation above."""
    made: dict[str, dict[str, str]] = {}
    # A word list may be wrapped behind a bar; member names hold no blank, so blanks separate members.
    for block in re.split(r"\n(?=\S)", re.sub(r"\|\s+", "|", _TABLE.strip())):
        name, _, members = block.partition(":")
        made[name] = dict(member.split("=", 1) for member in members.split())
    return made


@functools.lru_cache(maxsize=4096)
def camel(name: str) -> str:
    """Return a member name as the document spells it: the service takes ``file_data`` for ``fileData``."""
    return re.sub(r"(?<=[a-zA-Z0-9])_([a-z0-9])", lambda found: found[1].upper(), name)


def member_type(message: str, name: str) -> Type | None:
    """Return the type of a member in either spelling, or None when the message has no such member."""
    members = messages().get(message, {})
    name = name if name in members else camel(name)
    return _typed(members[name], name) if name in members else None


@functools.cache
def _typed(text: str, name: str) -> Type:
    if text == "any" and name in _JSON_SCHEMAS:
        return JSON_SCHEMA
    if text in _SCALARS:
        return _SCALARS[text]
    if text.startswith("["):
        inner = _typed(text[1:-1], "")
        # The service's parser takes a single object where a list of messages is documented: its own samples do that.
        return Type(frozenset({LIST, OBJECT} if inner.message else {LIST}), message=inner.message, inner=inner)
    if text.startswith("{"):
        return Type(frozenset({OBJECT}), inner=_typed(text[1:-1], ""))
    if text.startswith("<"):
        # Protobuf's JSON takes an enumeration's number as well.
        return Type(frozenset({TEXT, NUMBER}), words=frozenset(text[1:-1].split("|")))
    return Type(frozenset({OBJECT}), message=text)


_TABLE = """
GenerateContentRequest: cachedContent=string contents=[Content] continuationToken=bytes
  generationConfig=GenerationConfig labels={string} modelArmorConfig=ModelArmorConfig
  outputConfig=GenerateContentRequestOutputConfig safetySettings=[SafetySetting] systemInstruction=Content
  toolConfig=ToolConfig tools=[Tool]
Content: parts=[Part] role=string
GenerationConfig: audioTimestamp=bool audioTranscriptionConfig=AudioTranscriptionConfig candidateCount=int32
  enableAffectiveDialog=bool frequencyPenalty=number imageConfig=ImageConfig logprobs=int32 maxOutputTokens=int32
  mediaResolution=<MEDIA_RESOLUTION_UNSPECIFIED|MEDIA_RESOLUTION_LOW|MEDIA_RESOLUTION_MEDIUM|MEDIA_RESOLUTION_HIGH>
  presencePenalty=number responseFormat=[ResponseFormat] responseJsonSchema=any responseLogprobs=bool
  responseMimeType=string responseModalities=[<MODALITY_UNSPECIFIED|TEXT|IMAGE|AUDIO|VIDEO>] responseSchema=Schema
  routingConfig=GenerationConfigRoutingConfig seed=int32 speechConfig=SpeechConfig stopSequences=[string]
  temperature=number thinkingConfig=GenerationConfigThinkingConfig topK=number topP=number
  translationConfig=TranslationConfig
ModelArmorConfig: promptTemplateName=string responseTemplateName=string
GenerateContentRequestOutputConfig: outputUriPrefix=string
SafetySetting:
  category=<HARM_CATEGORY_UNSPECIFIED|HARM_CATEGORY_HATE_SPEECH|HARM_CATEGORY_DANGEROUS_CONTENT|
    HARM_CATEGORY_HARASSMENT|HARM_CATEGORY_SEXUALLY_EXPLICIT|HARM_CATEGORY_CIVIC_INTEGRITY|HARM_CATEGORY_IMAGE_HATE|
    HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT|HARM_CATEGORY_IMAGE_HARASSMENT|HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT|
    HARM_CATEGORY_JAILBREAK>
  method=<HARM_BLOCK_METHOD_UNSPECIFIED|SEVERITY|PROBABILITY>
  threshold=<HARM_BLOCK_THRESHOLD_UNSPECIFIED|BLOCK_LOW_AND_ABOVE|BLOCK_MEDIUM_AND_ABOVE|BLOCK_ONLY_HIGH|BLOCK_NONE|
    OFF>
ToolConfig: functionCallingConfig=FunctionCallingConfig retrievalConfig=RetrievalConfig
Tool: codeExecution=ToolCodeExecution computerUse=ToolComputerUse enterpriseWebSearch=EnterpriseWebSearch
  exaAiSearch=ToolExaAiSearch functionDeclarations=[FunctionDeclaration] googleMaps=GoogleMaps
  googleSearch=ToolGoogleSearch googleSearchRetrieval=GoogleSearchRetrieval parallelAiSearch=ToolParallelAiSearch
  retrieval=Retrieval urlContext=UrlContext
Part: audioTranscription=AudioTranscription codeExecutionResult=CodeExecutionResult executableCode=ExecutableCode
  fileData=FileData functionCall=FunctionCall functionResponse=FunctionResponse inlineData=Blob
  mediaResolution=PartMediaResolution speechMetadata=SpeechMetadata text=string thought=bool thoughtSignature=bytes
  videoMetadata=VideoMetadata
AudioTranscriptionConfig: adaptationPhrases=[string] customVocabulary=[string] diarization=bool
  languageAuto=AudioTranscriptionConfigLanguageAuto languageCodes=[string]
  languageHints=AudioTranscriptionConfigLanguageHints mode=<MODE_UNSPECIFIED|VERBATIM|SMART> sourceText=string
  wordTimestamp=bool
ImageConfig: aspectRatio=string imageOutputOptions=ImageConfigImageOutputOptions imageSize=string
  personGeneration=<PERSON_GENERATION_UNSPECIFIED|ALLOW_ALL|ALLOW_ADULT|ALLOW_NONE>
  prominentPeople=<PROMINENT_PEOPLE_UNSPECIFIED|ALLOW_PROMINENT_PEOPLE|BLOCK_PROMINENT_PEOPLE>
ResponseFormat: audio=AudioResponseFormat image=ImageResponseFormat text=TextResponseFormat video=VideoResponseFormat
Schema: additionalProperties=any anyOf=[Schema] default=any defs={Schema} description=string enum=[string] example=any
  format=string items=Schema maxItems=int64 maxLength=int64 maxProperties=int64 maximum=number minItems=int64
  minLength=int64 minProperties=int64 minimum=number nullable=bool pattern=string properties={Schema}
  propertyOrdering=[string] ref=string required=[string] title=string
  type=<TYPE_UNSPECIFIED|STRING|NUMBER|INTEGER|BOOLEAN|ARRAY|OBJECT|NULL>
GenerationConfigRoutingConfig: autoMode=GenerationConfigRoutingConfigAutoRoutingMode
  manualMode=GenerationConfigRoutingConfigManualRoutingMode
SpeechConfig: languageCode=string multiSpeakerVoiceConfig=MultiSpeakerVoiceConfig voiceConfig=VoiceConfig
GenerationConfigThinkingConfig: includeThoughts=bool thinkingBudget=int32
  thinkingLevel=<THINKING_LEVEL_UNSPECIFIED|LOW|MEDIUM|HIGH|MINIMAL>
TranslationConfig: echoTargetLanguage=bool targetLanguageCode=string
FunctionCallingConfig: allowedFunctionNames=[string] mode=<MODE_UNSPECIFIED|AUTO|ANY|NONE|VALIDATED>
  streamFunctionCallArguments=bool
RetrievalConfig: languageCode=string latLng=GoogleTypeLatLng
ToolCodeExecution:
ToolComputerUse:
  disabledSafetyPolicies=[<SAFETY_POLICY_UNSPECIFIED|FINANCIAL_TRANSACTIONS|SENSITIVE_DATA_MODIFICATION|
    COMMUNICATION_TOOL|ACCOUNT_CREATION|DATA_MODIFICATION|USER_CONSENT_MANAGEMENT|LEGAL_TERMS_AND_AGREEMENTS>]
  enablePromptInjectionDetection=bool
  environment=<ENVIRONMENT_UNSPECIFIED|ENVIRONMENT_BROWSER|ENVIRONMENT_MOBILE|ENVIRONMENT_DESKTOP>
  excludedPredefinedFunctions=[string]
EnterpriseWebSearch:
  blockingConfidence=<PHISH_BLOCK_THRESHOLD_UNSPECIFIED|BLOCK_LOW_AND_ABOVE|BLOCK_MEDIUM_AND_ABOVE|
    BLOCK_HIGH_AND_ABOVE|BLOCK_HIGHER_AND_ABOVE|BLOCK_VERY_HIGH_AND_ABOVE|BLOCK_ONLY_EXTREMELY_HIGH>
  excludeDomains=[string]
ToolExaAiSearch: apiKey=string customConfigs={any}
FunctionDeclaration: behavior=<UNSPECIFIED|BLOCKING|NON_BLOCKING> description=string name=string parameters=Schema
  parametersJsonSchema=any response=Schema responseJsonSchema=any
GoogleMaps: enableWidget=bool groundingTypes=GoogleMapsGroundingTypes
ToolGoogleSearch:
  blockingConfidence=<PHISH_BLOCK_THRESHOLD_UNSPECIFIED|BLOCK_LOW_AND_ABOVE|BLOCK_MEDIUM_AND_ABOVE|
    BLOCK_HIGH_AND_ABOVE|BLOCK_HIGHER_AND_ABOVE|BLOCK_VERY_HIGH_AND_ABOVE|BLOCK_ONLY_EXTREMELY_HIGH>
  excludeDomains=[string] searchTypes=ToolGoogleSearchSearchTypes
GoogleSearchRetrieval: dynamicRetrievalConfig=DynamicRetrievalConfig
ToolParallelAiSearch: apiKey=string customConfigs={any} enableDataRetention=bool enableZeroDataRetention=bool
Retrieval: disableAttribution=bool externalApi=ExternalApi vertexAiSearch=VertexAISearch vertexRagStore=VertexRagStore
UrlContext:
AudioTranscription: speakerLabel=string text=string words=[AudioTranscriptionWordInfo]
CodeExecutionResult: id=string outcome=<OUTCOME_UNSPECIFIED|OUTCOME_OK|OUTCOME_FAILED|OUTCOME_DEADLINE_EXCEEDED>
  output=string
ExecutableCode: code=string id=string language=<LANGUAGE_UNSPECIFIED|PYTHON>
FileData: displayName=string fileUri=string mimeType=string
FunctionCall: args={any} id=string name=string partialArgs=[PartialArg] willContinue=bool
FunctionResponse: id=string name=string parts=[FunctionResponsePart] response={any}
  scheduling=<SCHEDULING_UNSPECIFIED|SILENT|WHEN_IDLE|INTERRUPT>
Blob: data=bytes displayName=string mimeType=string
PartMediaResolution:
  level=<MEDIA_RESOLUTION_UNSPECIFIED|MEDIA_RESOLUTION_LOW|MEDIA_RESOLUTION_MEDIUM|MEDIA_RESOLUTION_HIGH|
    MEDIA_RESOLUTION_ULTRA_HIGH>
SpeechMetadata: speaker=string style=string
VideoMetadata: endOffset=string fps=number startOffset=string
AudioTranscriptionConfigLanguageAuto:
AudioTranscriptionConfigLanguageHints: languageCodes=[string]
ImageConfigImageOutputOptions: compressionQuality=int32 mimeType=string
AudioResponseFormat: bitRate=int32 delivery=<DELIVERY_UNSPECIFIED|INLINE|URI>
  mimeType=<MIME_TYPE_UNSPECIFIED|AUDIO_MP3|AUDIO_OGG_OPUS|AUDIO_L16|AUDIO_WAV|AUDIO_ALAW|AUDIO_MULAW>
  sampleRate=int32
ImageResponseFormat:
  aspectRatio=<ASPECT_RATIO_UNSPECIFIED|ASPECT_RATIO_ONE_BY_ONE|ASPECT_RATIO_TWO_BY_THREE|ASPECT_RATIO_THREE_BY_TWO|
    ASPECT_RATIO_THREE_BY_FOUR|ASPECT_RATIO_FOUR_BY_THREE|ASPECT_RATIO_FOUR_BY_FIVE|ASPECT_RATIO_FIVE_BY_FOUR|
    ASPECT_RATIO_NINE_BY_SIXTEEN|ASPECT_RATIO_SIXTEEN_BY_NINE|ASPECT_RATIO_TWENTY_ONE_BY_NINE|
    ASPECT_RATIO_ONE_BY_EIGHT|ASPECT_RATIO_EIGHT_BY_ONE|ASPECT_RATIO_ONE_BY_FOUR|ASPECT_RATIO_FOUR_BY_ONE>
  delivery=<DELIVERY_UNSPECIFIED|INLINE|URI>
  imageSize=<IMAGE_SIZE_UNSPECIFIED|IMAGE_SIZE_FIVE_TWELVE|IMAGE_SIZE_ONE_K|IMAGE_SIZE_TWO_K|IMAGE_SIZE_FOUR_K>
  mimeType=<MIME_TYPE_UNSPECIFIED|IMAGE_JPEG>
TextResponseFormat: mimeType=<MIME_TYPE_UNSPECIFIED|APPLICATION_JSON|TEXT_PLAIN> schema=any
VideoResponseFormat: aspectRatio=<ASPECT_RATIO_UNSPECIFIED|ASPECT_RATIO_SIXTEEN_BY_NINE|ASPECT_RATIO_NINE_BY_SIXTEEN>
  delivery=<DELIVERY_UNSPECIFIED|INLINE|URI> duration=string gcsUri=string resolution=string
GenerationConfigRoutingConfigAutoRoutingMode:
  modelRoutingPreference=<UNKNOWN|PRIORITIZE_QUALITY|BALANCED|PRIORITIZE_COST>
GenerationConfigRoutingConfigManualRoutingMode: modelName=string
MultiSpeakerVoiceConfig: speakerVoiceConfigs=[SpeakerVoiceConfig]
VoiceConfig: prebuiltVoiceConfig=PrebuiltVoiceConfig replicatedVoiceConfig=ReplicatedVoiceConfig voice=string
GoogleTypeLatLng: latitude=number longitude=number
GoogleMapsGroundingTypes: places=GoogleMapsPlaces routing=GoogleMapsRouting
ToolGoogleSearchSearchTypes: imageSearch=ToolGoogleSearchImageSearch webSearch=ToolGoogleSearchWebSearch
DynamicRetrievalConfig: dynamicThreshold=number mode=<MODE_UNSPECIFIED|MODE_DYNAMIC>
ExternalApi: apiAuth=ApiAuth apiSpec=<API_SPEC_UNSPECIFIED|SIMPLE_SEARCH|ELASTIC_SEARCH> authConfig=AuthConfig
  elasticSearchParams=ExternalApiElasticSearchParams endpoint=string simpleSearchParams=ExternalApiSimpleSearchParams
VertexAISearch: dataStoreSpecs=[VertexAISearchDataStoreSpec] datastore=string engine=string filter=string
  maxResults=int32
VertexRagStore: ragResources=[VertexRagStoreRagResource] ragRetrievalConfig=RagRetrievalConfig similarityTopK=int32
  vectorDistanceThreshold=number
AudioTranscriptionWordInfo: endOffset=string startOffset=string word=string
PartialArg: boolValue=bool jsonPath=string nullValue=<NULL_VALUE> numberValue=number stringValue=string
  willContinue=bool
FunctionResponsePart: fileData=FunctionResponseFileData inlineData=FunctionResponseBlob
SpeakerVoiceConfig: speaker=string voiceConfig=VoiceConfig
PrebuiltVoiceConfig: voiceName=string
ReplicatedVoiceConfig: mimeType=string voiceSampleAudio=bytes
GoogleMapsPlaces:
GoogleMapsRouting:
ToolGoogleSearchImageSearch:
ToolGoogleSearchWebSearch:
ApiAuth: apiKeyConfig=ApiAuthApiKeyConfig
AuthConfig: apiKeyConfig=AuthConfigApiKeyConfig
  authType=<AUTH_TYPE_UNSPECIFIED|NO_AUTH|API_KEY_AUTH|HTTP_BASIC_AUTH|GOOGLE_SERVICE_ACCOUNT_AUTH|OAUTH|OIDC_AUTH>
  googleServiceAccountConfig=AuthConfigGoogleServiceAccountConfig httpBasicAuthConfig=AuthConfigHttpBasicAuthConfig
  oauthConfig=AuthConfigOauthConfig oidcConfig=AuthConfigOidcConfig
ExternalApiElasticSearchParams: index=string numHits=int32 searchTemplate=string
ExternalApiSimpleSearchParams:
VertexAISearchDataStoreSpec: dataStore=string filter=string
VertexRagStoreRagResource: ragCorpus=string ragFileIds=[string]
RagRetrievalConfig: filter=RagRetrievalConfigFilter ranking=RagRetrievalConfigRanking topK=int32
FunctionResponseFileData: displayName=string fileUri=string mimeType=string
FunctionResponseBlob: data=bytes displayName=string mimeType=string
ApiAuthApiKeyConfig: apiKeySecretVersion=string apiKeyString=string
AuthConfigApiKeyConfig: apiKeySecret=string apiKeyString=string
  httpElementLocation=<HTTP_IN_UNSPECIFIED|HTTP_IN_QUERY|HTTP_IN_HEADER|HTTP_IN_PATH|HTTP_IN_BODY|HTTP_IN_COOKIE>
  name=string
AuthConfigGoogleServiceAccountConfig: serviceAccount=string
AuthConfigHttpBasicAuthConfig: credentialSecret=string
AuthConfigOauthConfig: accessToken=string serviceAccount=string
AuthConfigOidcConfig: idToken=string serviceAccount=string
RagRetrievalConfigFilter: metadataFilter=string vectorDistanceThreshold=number vectorSimilarityThreshold=number
RagRetrievalConfigRanking: llmRanker=RagRetrievalConfigRankingLlmRanker
  rankService=RagRetrievalConfigRankingRankService
RagRetrievalConfigRankingLlmRanker: modelName=string
RagRetrievalConfigRankingRankService: modelName=string
"""
